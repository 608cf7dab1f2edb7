// Calls that are watched, and that end early: what they computed stays, and nobody else notices.

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "cache/path_scorer.h"
#include "gated_lm.h"
#include "lmfusion/call_watch.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"

namespace lmfusion {
namespace {

struct Stop {};
using Reports = std::vector<std::pair<int64_t, int64_t>>;

// Sixteen texts that share nothing but the first token: 65 tokens, 49 of which are computed.
std::vector<Tokens> SixteenTexts() {
  std::vector<Tokens> texts;
  for (int32_t i = 0; i < 16; ++i) texts.push_back({1, 10 + i, 2, 3, 4});
  return texts;
}

TEST(CallWatch, IsToldAfterEveryPassHowManyPathsAreDone) {
  const auto scorer = HashScorer(1000, Mode::kTree, 10);
  Reports reports;
  {
    CallWatch watch([&](int64_t done, int64_t total) { reports.emplace_back(done, total); });
    watch.Begin(16);
    ExpectScores(*scorer, SixteenTexts(), 4);
  }
  EXPECT_EQ(reports, (Reports{{3, 16}, {6, 16}, {9, 16}, {13, 16}, {16, 16}}));
  EXPECT_EQ(StatsOf(*scorer).forwards, 5u);
  scorer->Clear();
  ExpectScores(*scorer, SixteenTexts(), 4);
  EXPECT_EQ(reports.size(), 5u) << "the watch is gone";
}

TEST(CallWatch, CountsOverTheChunksOfASmallCache) {
  const auto scorer = HashScorer(12, Mode::kTree, 4);
  Reports reports;
  CallWatch watch([&](int64_t done, int64_t total) { reports.emplace_back(done, total); });
  watch.Begin(16);
  ExpectScores(*scorer, SixteenTexts(), 4);
  ASSERT_GT(reports.size(), 8u);
  for (size_t i = 1; i < reports.size(); ++i) EXPECT_GE(reports[i].first, reports[i - 1].first);
  EXPECT_EQ(reports.back(), std::make_pair(int64_t{16}, int64_t{16}));
}

TEST(CallWatch, APieceIsAShareOfTheCall) {
  Reports reports;
  CallWatch watch([&](int64_t done, int64_t total) { reports.emplace_back(done, total); });
  watch.Begin(10);
  watch.BeginPiece(4, 6);
  watch.Report(1, 2);
  watch.Report(0, 3);  // never less than before
  watch.Report(0, 0);  // nothing to do is done
  EXPECT_EQ(reports, (Reports{{7, 10}, {7, 10}, {10, 10}}));
}

TEST(CallWatch, EndsACallAfterAPassAndWhatWasComputedStays) {
  const auto scorer = HashScorer(1000, Mode::kTree, 10);
  int passes = 0;
  {
    CallWatch watch([&](int64_t, int64_t) {
      if (++passes == 2) throw Stop();
    });
    EXPECT_THROW(ExpectScores(*scorer, SixteenTexts(), 4), Stop);
  }
  EXPECT_EQ(StatsOf(*scorer).forwards, 2u);
  EXPECT_EQ(StatsOf(*scorer).cached_tokens, 20);
  ExpectScores(*scorer, SixteenTexts(), 4);
  EXPECT_EQ(StatsOf(*scorer).forwards, 5u);
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 49u) << "each once, over both calls";
}

TEST(CallWatch, EndsACallAfterItsLastPass) {
  const auto scorer = HashScorer(1000);
  {
    CallWatch watch([](int64_t, int64_t) { throw Stop(); });
    EXPECT_THROW(ExpectScores(*scorer, SixteenTexts(), 4), Stop);
  }
  ExpectScores(*scorer, SixteenTexts(), 4);
  EXPECT_EQ(StatsOf(*scorer).forwards, 1u);
}

TEST(CallWatch, EndsCallsOfTheOtherModes) {
  for (const Mode mode : {Mode::kGrouped, Mode::kUncached}) {
    const auto scorer = HashScorer(1000, mode, 10);
    {
      int passes = 0;
      CallWatch watch([&](int64_t, int64_t) {
        if (++passes == 3) throw Stop();
      });
      EXPECT_THROW(ExpectScores(*scorer, SixteenTexts(), 4), Stop);
    }
    EXPECT_EQ(StatsOf(*scorer).forwards, 3u);
    EXPECT_EQ(StatsOf(*scorer).cached_tokens, 0);
    ExpectScores(*scorer, SixteenTexts(), 4);
  }
}

TEST(CallWatch, EndsACallBesideTheCache) {
  const auto scorer = HashScorer(1000, Mode::kTree, 10);
  const std::vector<Tokens> texts = SixteenTexts();
  const std::vector<int32_t> begins = LastTokens(texts, 4);
  {
    CallWatch watch([](int64_t, int64_t) { throw Stop(); });
    EXPECT_THROW(scorer->ScoreUncached(Paths(texts, begins)), Stop);
  }
  EXPECT_EQ(StatsOf(*scorer).forwards, 1u);
  ExpectRight(texts, begins, scorer->ScoreUncached(Paths(texts, begins)));
}

TEST(CallWatch, EndsPrime) {
  const auto scorer = HashScorer(1000, Mode::kTree, 10);
  const std::vector<Tokens> texts = SixteenTexts();
  {
    CallWatch watch([](int64_t, int64_t) { throw Stop(); });
    EXPECT_THROW(scorer->Prime(Paths(texts, LastTokens(texts, 0)), ""), Stop);
  }
  EXPECT_EQ(StatsOf(*scorer).cached_tokens, 10);
  EXPECT_EQ(scorer->Prime(Paths(texts, LastTokens(texts, 0)), ""), 55);
}

TEST(CallWatch, OfCallsWithinOthersIsTheYoungest) {
  const auto scorer = HashScorer(1000);
  int outer = 0, inner = 0;
  CallWatch watch([&](int64_t, int64_t) { ++outer; });
  {
    CallWatch youngest([&](int64_t, int64_t) { ++inner; });
    ExpectScores(*scorer, {{1, 2, 3}}, 1);
  }
  EXPECT_EQ(inner, 1);
  EXPECT_EQ(outer, 0);
  ExpectScores(*scorer, {{1, 5, 3}}, 1);
  EXPECT_EQ(outer, 1);
}

TEST(CallWatch, MayNotCallTheScorerAtWork) {
  const auto scorer = HashScorer(1000, Mode::kTree, 10);
  const auto other = HashScorer(1000);
  {
    CallWatch watch([&](int64_t, int64_t) { ExpectScores(*scorer, {{1, 2, 3}}, 1); });
    EXPECT_THROW(ExpectScores(*scorer, SixteenTexts(), 4), Error);
  }
  {
    CallWatch watch([&](int64_t, int64_t) { scorer->Clear(); });
    EXPECT_THROW(ExpectScores(*scorer, SixteenTexts(), 4), Error);
  }
  int calls = 0;
  CallWatch watch([&](int64_t, int64_t) {
    CallWatch none([](int64_t, int64_t) {});
    ExpectScores(*other, {{1, 2, ++calls}}, 1);
    EXPECT_GE(StatsOf(*scorer).forwards, 2u);
  });
  ExpectScores(*scorer, SixteenTexts(), 4);
  EXPECT_GT(calls, 0);
}

// A watch that waits: it counts how often it was asked, and throws from when it is told to.
struct Patience {
  std::atomic<int> asked{0};
  std::atomic<bool> ends{false}, threw{false};
  void operator()() {
    ++asked;
    if (!ends) return;
    threw = true;
    throw Stop();
  }
  void AwaitAsked() const {
    for (const int before = asked; asked == before;) std::this_thread::yield();
  }
};

TEST(CallWatch, EndsACallThatWaitsForItsTurn) {
  alarm(60);
  Gate gate;
  const auto scorer = ScorerOf(std::make_unique<GatedLM>(&gate), 1000);
  std::thread leader([&] { ExpectScores(*scorer, {{1, 2, 3}}, 1); });
  gate.AwaitSomeone();
  const std::vector<std::function<void()>> calls{[&] {
                                                   ExpectScores(*scorer, {{1, 2, 4}}, 1);
                                                 },
                                                 [&] {
                                                   scorer->Prime(Paths({{1, 5, 6}}, {3}), "");
                                                 },
                                                 [&] { scorer->Clear(); }};
  for (const auto& call : calls) {
    CallWatch watch([](int64_t, int64_t) { throw Stop(); });
    EXPECT_THROW(call(), Stop) << "while the model is at work for another thread";
  }
  gate.Open();
  leader.join();
  EXPECT_EQ(StatsOf(*scorer).forwards, 1u);
  alarm(0);
}

TEST(CallWatch, EndsACallThatWaitsBehindOthersWhichGoOn) {
  alarm(60);
  Gate gate;
  const auto scorer = ScorerOf(std::make_unique<GatedLM>(&gate), 1000);
  std::thread leader([&] { ExpectScores(*scorer, {{1, 2, 3}}, 1); });
  gate.AwaitSomeone();
  Patience patience;
  std::thread before([&] {
    CallWatch watch([&](int64_t, int64_t) { patience(); });
    ExpectScores(*scorer, {{1, 2, 4}}, 1);
  });
  patience.AwaitAsked();  // so it waits, and what comes now waits behind it
  {
    CallWatch watch([](int64_t, int64_t) { throw Stop(); });
    EXPECT_THROW(ExpectScores(*scorer, {{1, 2, 5, 6}}, 1), Stop);
  }
  gate.Open();
  leader.join();
  before.join();
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 2u) << "of the text 1 2 5 6 nothing";
  alarm(0);
}

TEST(CallWatch, EndsACallThatWaitsForAPlainModel) {
  alarm(60);
  Gate gate;
  PathScorerOptions options;
  options.max_batch_tokens = 10;
  const auto scorer = PlainPathScorer(std::make_unique<GatedPlainLM>(&gate), options);
  std::thread leader([&] { ExpectScores(*scorer, {{1, 2, 3}}, 1); });
  gate.AwaitSomeone();
  {
    CallWatch watch([](int64_t, int64_t) { throw Stop(); });
    EXPECT_THROW(ExpectScores(*scorer, {{1, 2, 4}}, 1), Stop);
  }
  gate.Open();
  leader.join();
  int batches = 0;
  CallWatch watch([&](int64_t, int64_t) {
    if (++batches == 2) throw Stop();
  });
  EXPECT_THROW(ExpectScores(*scorer, SixteenTexts(), 4), Stop);
  EXPECT_EQ(StatsOf(*scorer).forwards, 3u);
  alarm(0);
}

// A model that computes as many passes as it is allowed to, and then waits.
class SteppedLM final : public HashLM {
 public:
  struct Steps {
    std::mutex mutex;
    std::condition_variable changed;
    int allowed = 0, begun = 0;
    void Allow(int passes) {
      const std::lock_guard<std::mutex> lock(mutex);
      allowed += passes;
      changed.notify_all();
    }
    void AwaitBegun(int passes) {
      std::unique_lock<std::mutex> lock(mutex);
      changed.wait(lock, [&] { return begun >= passes; });
    }
  };
  explicit SteppedLM(Steps* steps) : steps_(steps) {}
  void Forward(const BatchPlan& plan) override {
    {
      std::unique_lock<std::mutex> lock(steps_->mutex);
      ++steps_->begun;
      steps_->changed.notify_all();
      steps_->changed.wait(lock, [&] { return steps_->allowed > 0; });
      --steps_->allowed;
    }
    HashLM::Forward(plan);
  }

 private:
  Steps* const steps_;
};

// Two calls run as one, whoever of them leads; one ends, the other goes on without it.
TEST(CallWatch, EndsACallWhoseWorkIsSharedAndTheOtherGoesOn) {
  alarm(60);
  SteppedLM::Steps steps;
  const auto scorer = ScorerOf(std::make_unique<SteppedLM>(&steps), 1000, Mode::kTree, 10);
  std::thread first([&] { ExpectScores(*scorer, {{1, 2, 3}}, 1); });
  steps.AwaitBegun(1);
  Patience goes, stays;
  std::atomic<bool> has_ended{false};
  std::vector<Tokens> long_texts = SixteenTexts();
  for (Tokens& text : long_texts) text[1] += 20;
  std::thread ended([&] {
    CallWatch watch([&](int64_t, int64_t) { goes(); });
    EXPECT_THROW(ExpectScores(*scorer, long_texts, 4), Stop);
    has_ended = true;
  });
  std::thread other([&] {
    CallWatch watch([&](int64_t, int64_t) { stays(); });
    ExpectScores(*scorer, SixteenTexts(), 4);
  });
  goes.AwaitAsked();
  stays.AwaitAsked();
  steps.Allow(1);
  steps.AwaitBegun(2);  // of the two, by one of them, and the other sleeps
  const int before = goes.asked;
  const int stays_before = stays.asked;
  while (goes.asked == before && stays.asked == stays_before) std::this_thread::yield();
  const bool sleeps = goes.asked != before;
  goes.ends = true;
  while (sleeps && !goes.threw) std::this_thread::yield();
  // One pass; more only where the thread is slow to say that its watch threw.
  int passes = 0;
  while (!has_ended) {
    steps.Allow(1);
    ++passes;
    for (int i = 0; i < 200 && !has_ended; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  EXPECT_LT(passes, 5);
  ended.join();
  steps.Allow(100);
  other.join();
  first.join();
  EXPECT_LE(StatsOf(*scorer).tokens_computed, 2u + 10u * passes + 49u)
      << "nearly nothing of the call that ended";
  alarm(0);
}

// As many threads as like, calls that end when they like: the others get what is right.
TEST(CallWatch, EndsCallsOfManyThreads) {
  alarm(300);
  const auto scorer = HashScorer(60, Mode::kTree, 6);
  std::atomic<int> ended{0}, whole{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int k = 0; k < 150; ++k) {
        const std::vector<Tokens> texts = RandomTexts(random, 8, 12);
        const std::vector<int32_t> begins = RandomBegins(random, texts);
        const bool watched = random() % 3 != 0;
        CallWatch watch([&](int64_t, int64_t) {
          if (watched && random() % 4 == 0) throw Stop();
        });
        try {
          ExpectRight(texts, begins, scorer->Score(Paths(texts, begins), ""));
          ++whole;
        } catch (const Stop&) {
          ++ended;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ended + whole, 900);
  EXPECT_GT(ended, 20);
  EXPECT_GT(whole, 300);
  ExpectScores(*scorer, {{1, 2, 3}}, 2);
  alarm(0);
}

}  // namespace
}  // namespace lmfusion
