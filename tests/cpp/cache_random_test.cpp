// Random calls of all kinds, from one thread and several, in all modes and budgets, against the
// model that can be computed by hand.
//
//   LMFUSION_TEST_SECONDS  how long to go on, beyond the first round (default: not)
//   LMFUSION_TEST_SEED     the first seed (default 1); a failure tells the seed of its round

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cache/path_scorer.h"
#include "hash_lm.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"

namespace lmfusion {
namespace {

constexpr int32_t kPoison = 49;  // computing it gives NaN
constexpr int kRounds = 16;      // of the short run

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoll(value);
}

// Refuses large batches and poisoned tokens.
class RandomLM final : public HashLM {
 public:
  explicit RandomLM(int64_t most) : most_(most) { poisoned_token = kPoison; }
  void Forward(const BatchPlan& plan) override {
    if (plan.size() > most_) throw OutOfDeviceMemory("too many tokens");
    HashLM::Forward(plan);
  }

 private:
  const int64_t most_;  // tokens of a batch
};

struct Settings {
  explicit Settings(uint32_t seed) {
    std::mt19937 random(seed);
    const Mode modes[] = {Mode::kTree, Mode::kTree, Mode::kTree, Mode::kGrouped, Mode::kUncached};
    const int64_t capacities[] = {20, 25, 33, 60, 200, 800};
    const int64_t batches[] = {1, 2, 3, 7, 16, 512};
    const int threads_of[] = {1, 1, 2, 4};
    mode = modes[random() % 5];
    capacity = capacities[random() % 6];
    batch = batches[random() % 6];
    device_batch = random() % 3 == 0 ? 1 + random() % 8 : 1000;
    threads = threads_of[random() % 4];
    names = random() % 4 == 0 ? 2000 : 3;
  }
  std::string ToString() const {
    return "mode " + std::string(Name(mode)) + ", cache " + std::to_string(capacity) +
           " tokens, batches of " + std::to_string(batch) + " and on the device of " +
           std::to_string(device_batch) + ", threads " + std::to_string(threads) + ", namespaces " +
           std::to_string(names);
  }
  Mode mode;
  int64_t capacity, batch, device_batch;
  int threads;
  int names;  // of namespaces
};

class RandomCalls {
 public:
  RandomCalls(const Settings& settings, std::string folder)
      : settings_(settings),
        folder_(std::move(folder)),
        scorer_(ScorerOf(std::make_unique<RandomLM>(settings.device_batch), settings.capacity,
                         settings.mode, settings.batch)) {}

  // One thread's calls.
  void Run(uint32_t seed, int calls) {
    std::mt19937 random(seed);
    for (int call = 0; call < calls && !testing::Test::HasFatalFailure(); ++call) {
      SCOPED_TRACE("call " + std::to_string(call));
      const uint32_t kind = random() % 40;
      if (kind < 30 || settings_.mode != Mode::kTree) {
        Score(random);
      } else if (kind < 33) {
        Prime(random);
      } else if (kind < 36) {
        Save(random);
      } else if (kind < 39) {
        Load(random);
      } else {
        scorer_->Clear();
      }
      const Stats stats = StatsOf(*scorer_);
      ASSERT_LE(stats.cached_tokens, settings_.capacity);
    }
  }

  // Nothing is pinned or lost: a text as long as the cache fits, and is right.
  void ExpectWhole() {
    ExpectScores(*scorer_, {Tokens(settings_.capacity, 3)}, 3);
    ExpectScores(*scorer_, {{1, 2, 3}, {1, 2, 4}}, 2);
    const Stats stats = StatsOf(*scorer_);
    if (settings_.mode != Mode::kTree) {
      EXPECT_EQ(stats.cache_bytes, 0);
    }
  }

 private:
  std::string Namespace(std::mt19937& random) const {
    return "n" + std::to_string(random() % settings_.names);
  }
  std::string File(std::mt19937& random) const {
    return folder_ + "/" + std::to_string(random() % 3);
  }

  std::vector<Tokens> Texts(std::mt19937& random) const {
    std::vector<Tokens> texts = RandomTexts(random, 1 + random() % 20, 20);
    for (Tokens& text : texts) {
      for (int32_t& token : text) token = token == kPoison ? 0 : token;
    }
    return texts;
  }

  void Score(std::mt19937& random) {
    std::vector<Tokens> texts = Texts(random);
    const bool poisoned = random() % 8 == 0;
    if (poisoned) texts.push_back({1, kPoison, 2});
    std::vector<int32_t> begins = RandomBegins(random, texts);
    if (poisoned) begins.back() = 2;
    const bool ends_word = random() % 3 == 0;
    CallReport report;
    try {
      const PathScores scores =
          scorer_->Score(Paths(texts, begins, ends_word), Namespace(random), &report);
      ASSERT_FALSE(poisoned);
      ExpectRight(texts, begins, scores, ends_word);
    } catch (const NumericalError&) {
      ASSERT_TRUE(poisoned);
      return;
    }
    uint64_t tokens = 0;
    ASSERT_EQ(report.reused.size(), texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      tokens += texts[i].size();
      ASSERT_EQ(report.reused[i].size(), texts[i].size());
      // What is held is held from the beginning of a path on.
      for (size_t k = 1; k < texts[i].size(); ++k) {
        ASSERT_TRUE(report.reused[i][k - 1] || !report.reused[i][k]);
      }
    }
    ASSERT_LE(report.tokens_computed, tokens);
  }

  void Prime(std::mt19937& random) {
    const std::vector<Tokens> texts = Texts(random);
    const std::vector<int32_t> begins =
        random() % 2 == 0 ? LastTokens(texts, 0) : RandomBegins(random, texts);
    const TokenPaths paths = Paths(texts, begins, random() % 2 == 0);
    const std::string cache_namespace = Namespace(random);
    try {
      scorer_->Prime(paths, cache_namespace);
    } catch (const CacheBudgetError&) {
      return;
    }
    if (settings_.threads > 1) return;
    // Alone: all of it is held, so to ask for it computes nothing.
    const uint64_t before = StatsOf(*scorer_).tokens_computed;
    ExpectRight(texts, begins, scorer_->Score(paths, cache_namespace));
    ASSERT_EQ(StatsOf(*scorer_).tokens_computed, before);
  }

  void Save(std::mt19937& random) {
    const std::vector<Tokens> texts = Texts(random);
    const TokenPaths some = Paths(texts, LastTokens(texts, 0));
    const std::string file = File(random);
    scorer_->Save(file, random() % 2 == 0 ? nullptr : &some, Namespace(random));
  }

  void Load(std::mt19937& random) {
    const std::string file = File(random);
    try {
      scorer_->Load(file, Namespace(random));
    } catch (const CacheBudgetError&) {  // with the roots of many namespaces it may be too large
    } catch (const CacheFileError& error) {
      ASSERT_NE(std::string(error.what()).find("no such"), std::string::npos) << error.what();
    }
  }

  const Settings settings_;
  const std::string folder_;
  const std::unique_ptr<PathScorer> scorer_;
};

void Round(uint32_t seed, const std::string& folder) {
  const Settings settings(seed);
  SCOPED_TRACE("LMFUSION_TEST_SEED=" + std::to_string(seed) + ": " + settings.ToString());
  RandomCalls calls(settings, folder);
  std::vector<std::thread> threads;
  for (int thread = 1; thread < settings.threads; ++thread) {
    threads.emplace_back([&calls, seed, thread] {
      SCOPED_TRACE("LMFUSION_TEST_SEED=" + std::to_string(seed));
      calls.Run(seed + 1000000 * thread, 40);
    });
  }
  calls.Run(seed, 40);
  for (std::thread& thread : threads) thread.join();
  calls.ExpectWhole();
}

TEST(Cache, RandomCallsAreRight) {
  using Clock = std::chrono::steady_clock;
  const std::string folder = std::filesystem::temp_directory_path() /
                             ("lmfusion_cache_random_test" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const auto first = static_cast<uint32_t>(FromEnvironment("LMFUSION_TEST_SEED", 1));
  const auto end = Clock::now() + std::chrono::seconds(FromEnvironment("LMFUSION_TEST_SECONDS", 0));
  uint32_t rounds = 0;
  for (; (rounds < kRounds || Clock::now() < end) && !HasFailure(); ++rounds) {
    alarm(300);  // a call that hangs ends the program
    Round(first + rounds, folder);
  }
  alarm(0);
  RecordProperty("token_scores", std::to_string(compared_scores.load()));
  RecordProperty("rounds", std::to_string(rounds));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace lmfusion
