// Sixteen threads on one scorer, each of whose calls must give what it gives alone, beside threads
// that clear, prime, save, load, explain and look at counters.
//
//   LMFUSION_TEST_CALLS  calls of each thread (default: 300)

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache/path_scorer.h"
#include "hash_lm.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"

namespace lmfusion {
namespace {

constexpr int kThreads = 16;
constexpr int64_t kCapacity = 4000;  // tokens

int CallsOfAThread() {
  const char* const value = std::getenv("LMFUSION_TEST_CALLS");
  return value == nullptr ? 300 : std::atoi(value);
}

// A pass takes about as long whatever is in it, as on a real machine, so it pays to share it.
class SlowLM final : public HashLM {
 public:
  void Forward(const BatchPlan& plan) override {
    HashLM::Forward(plan);
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
};

struct Request {
  std::vector<Tokens> texts;
  std::vector<int32_t> begins;
  bool ends_word;
  std::string cache_namespace;
};

Request RequestOf(int thread, int call) {
  std::mt19937 random(1000003 * thread + call);
  Request request;
  request.texts = RandomTexts(random, 1 + random() % 8, 16);
  // What no call before had, so that every call has work to do.
  request.texts.push_back({1, thread, call % 50, call / 50 % 50, 7, call / 2500});
  request.begins = RandomBegins(random, request.texts);
  request.ends_word = random() % 3 == 0;
  request.cache_namespace = "n" + std::to_string(random() % 4);
  return request;
}

PathScores Scored(PathScorer& scorer, const Request& request) {
  return scorer.Score(Paths(request.texts, request.begins, request.ends_word),
                      request.cache_namespace);
}

// Runs call(thread, number) of every thread; seconds that it took.
double RunThreads(int calls, const std::function<void(int, int)>& call) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&call, calls, thread] {
      for (int number = 0; number < calls && !testing::Test::HasFatalFailure(); ++number) {
        call(thread, number);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// What goes on beside the calls until it is ended.
class Beside {
 public:
  explicit Beside(PathScorer& scorer)
      : folder_(std::filesystem::temp_directory_path() /
                ("lmfusion_many_calls_test" + std::to_string(getpid()))),
        scorer_(scorer) {
    std::filesystem::create_directories(folder_);
    thread_ = std::thread([this] { Run(); });
  }
  int64_t End() {
    ended_ = true;
    thread_.join();
    std::filesystem::remove_all(folder_);
    return done_;
  }

 private:
  void Run() {
    std::mt19937 random(5);
    const std::string file = (folder_ / "saved").string();
    scorer_.Save(file, nullptr, "n0");
    const std::string cleared = "n1";
    for (; !ended_; ++done_) {
      const std::vector<Tokens> texts = RandomTexts(random, 5, 16);
      const TokenPaths paths = Paths(texts, LastTokens(texts, 0));
      switch (random() % 8) {
        case 0: scorer_.Clear(); break;
        case 1: scorer_.Clear(&cleared); break;
        case 2: scorer_.Prime(paths, "n2"); break;
        case 3: scorer_.Save(file, &paths, "n2"); break;
        case 4: scorer_.Load(file, "n3"); break;
        case 5: scorer_.Known(paths, "n2"); break;
        case 6: Explain(texts); break;
        default: scorer_.ScoreUncached(paths);
      }
      const Stats stats = StatsOf(scorer_);
      EXPECT_LE(stats.cache_bytes, stats.cache_bytes_limit);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  // What an explanation asks: the scores of whole texts, and what of them was held before.
  void Explain(const std::vector<Tokens>& texts) {
    const std::vector<int32_t> begins(texts.size(), 1);
    CallReport report;
    const PathScores scores = scorer_.Score(Paths(texts, begins), "n1", &report);
    ExpectRight(texts, begins, scores);
    ASSERT_EQ(report.reused.size(), texts.size());
  }

  const std::filesystem::path folder_;
  PathScorer& scorer_;
  std::atomic<bool> ended_{false};
  int64_t done_ = 0;
  std::thread thread_;
};

// Equal to the model by hand, and within a float's error to what a scorer of its own gives alone.
TEST(ManyCalls, AreEqualToSerialOnes) {
  alarm(3000);
  const int calls = CallsOfAThread();
  const auto scorer = HashScorer(kCapacity);
  Beside beside(*scorer);
  RunThreads(calls, [&](int thread, int call) {
    const Request request = RequestOf(thread, call);
    const PathScores scores = Scored(*scorer, request);
    ExpectRight(request.texts, request.begins, scores, request.ends_word);
    if (call % 50 != 0) return;
    const PathScores alone = Scored(*HashScorer(kCapacity), request);
    ASSERT_EQ(scores.log_probs, alone.log_probs);
    ASSERT_EQ(scores.word_end, alone.word_end);
  });
  EXPECT_GT(beside.End(), 0);
  ExpectScores(*scorer, {Tokens(100, 3)}, 3);
  RecordProperty("threads", kThreads);
  RecordProperty("calls_of_threads", kThreads * calls);
  alarm(0);
}

// Calls that wait run as one; behind a lock each has its own passes.
TEST(ManyCalls, ShareForwardPasses) {
  alarm(3000);
  const int calls = CallsOfAThread() / 10;
  const auto sharing = ScorerOf(std::make_unique<SlowLM>(), kCapacity);
  const auto locked = ScorerOf(std::make_unique<SlowLM>(), kCapacity);
  std::mutex lock;
  const double sharing_seconds =
      RunThreads(calls, [&](int thread, int call) { Scored(*sharing, RequestOf(thread, call)); });
  const double locked_seconds = RunThreads(calls, [&](int thread, int call) {
    const std::lock_guard<std::mutex> guard(lock);
    Scored(*locked, RequestOf(thread, call));
  });
  const Stats shared = StatsOf(*sharing), alone = StatsOf(*locked);
  EXPECT_LE(alone.forwards, static_cast<uint64_t>(kThreads) * calls);
  EXPECT_LT(2 * shared.forwards, alone.forwards);
  // Seconds of the machine that ran it, for a reader of the report.
  RecordProperty("largest_throughput_over_a_lock",
                 std::to_string(locked_seconds / sharing_seconds));
  RecordProperty("largest_calls_a_forward",
                 std::to_string(double(kThreads) * calls / double(shared.forwards)));
  alarm(0);
}

}  // namespace
}  // namespace lmfusion
