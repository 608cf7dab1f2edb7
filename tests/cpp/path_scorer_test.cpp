// Trees, plans, cache and modes against a model that can be computed by hand (hash_lm.h).

#include "cache/path_scorer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "hash_lm.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"

namespace lmfusion {
namespace {

class PathScorerTest
    : public testing::TestWithParam<std::tuple<Mode, int /*cache tokens*/, int /*batch*/>> {};

TEST_P(PathScorerTest, RandomCallsAreRight) {
  const auto [mode, cache, batch] = GetParam();
  const auto scorer = HashScorer(cache, mode, batch);
  std::mt19937 random(cache * 100 + batch);
  for (int call = 0; call < 40; ++call) {
    const auto texts = RandomTexts(random, 1 + random() % 30, 20);
    const auto begins = RandomBegins(random, texts);
    const bool ends_word = call % 3 == 0;
    const std::string cache_namespace = call % 5 == 0 ? "other" : "";
    ExpectRight(texts, begins, scorer->Score(Paths(texts, begins, ends_word), cache_namespace),
                ends_word);
    const Stats stats = StatsOf(*scorer);
    ASSERT_LE(stats.cache_bytes, stats.cache_bytes_limit);
    if (mode != Mode::kTree) {
      ASSERT_EQ(stats.cached_tokens, 0);
    }
  }
  const Stats stats = StatsOf(*scorer);
  EXPECT_GT(stats.tokens_computed, 0u);
  if (mode == Mode::kTree) {
    EXPECT_EQ(stats.evictions > 0, cache < 100);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, PathScorerTest,
    testing::Combine(testing::Values(Mode::kTree, Mode::kGrouped, Mode::kUncached),
                     testing::Values(20, 33, 100000), testing::Values(1, 2, 3, 7, 512)));

TEST(PathScorer, EachPrefixIsComputedOnceAndForEver) {
  const auto scorer = HashScorer(1000);
  // 1 2 3 is shared; the last tokens need no forward pass: 1, 2, 3, 4 do.
  const std::vector<Tokens> texts{{1, 2, 3, 4, 5}, {1, 2, 3, 6}, {1, 2, 3, 7}, {1, 2, 3, 6}};
  const std::vector<int32_t> begins{3, 3, 3, 3};
  ExpectRight(texts, begins, scorer->Score(Paths(texts, begins), ""));
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 4u);
  EXPECT_EQ(StatsOf(*scorer).forwards, 1u);
  ExpectRight(texts, begins, scorer->Score(Paths(texts, begins), ""));
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 4u);
  EXPECT_EQ(StatsOf(*scorer).forwards, 1u);
  // One token more: its parent, 5, was not computed before.
  ExpectRight({{1, 2, 3, 4, 5, 6}}, {5}, scorer->Score(Paths({{1, 2, 3, 4, 5, 6}}, {5}), ""));
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 5u);
  // Another namespace shares nothing.
  ExpectRight(texts, begins, scorer->Score(Paths(texts, begins), "other"));
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 9u);
  scorer->Clear();
  EXPECT_EQ(StatsOf(*scorer).cached_tokens, 0);
  ExpectRight(texts, begins, scorer->Score(Paths(texts, begins), ""));
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 13u);
}

TEST(PathScorer, WhatIsHeldGoesLast) {
  const std::vector<Tokens> prompt{{1, 2, 3, 4, 5, 6, 7, 8, 9}};
  for (const bool holds : {false, true}) {
    const auto scorer = HashScorer(20);
    std::shared_ptr<const void> held;
    if (holds) held = scorer->Hold(std::make_shared<const Tokens>(prompt[0]), "");
    scorer->Score(Paths(prompt, {9}), "");
    const auto computed = [&](const std::vector<Tokens>& texts, int32_t begin) {
      const uint64_t before = StatsOf(*scorer).tokens_computed;
      const std::vector<int32_t> begins(texts.size(), begin);
      ExpectRight(texts, begins, scorer->Score(Paths(texts, begins), ""));
      return StatsOf(*scorer).tokens_computed - before;
    };
    EXPECT_EQ(computed({{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}, 9), 9u);
    for (int32_t text = 20; text < 40; ++text) {  // of other calls, more than the cache holds
      computed({{text, 11, 12, 13, 14, 15, 16}}, 1);
    }
    EXPECT_EQ(computed({{1, 2, 3, 4, 5, 6, 7, 8, 9, 11}}, 9), holds ? 0u : 9u);
    // A text that needs all of the cache goes before what is held.
    Tokens longest(20, 3);
    EXPECT_EQ(computed({longest}, 1), 19u);
    held.reset();
    computed({{40, 11, 12, 13, 14, 15, 16}, {41, 11, 12, 13, 14, 15, 16}}, 1);
    computed({{42, 11, 12, 13, 14, 15, 16}, {43, 11, 12, 13, 14, 15, 16}}, 1);
    EXPECT_EQ(computed({{1, 2, 3, 4, 5, 6, 7, 8, 9, 12}}, 9), 9u);
  }
}

// As a context's candidates are handed over: one prefix in memory, and also a shorter part of it.
TEST(PathScorer, CandidatesOfOnePrefixAreRight) {
  const auto scorer = HashScorer(100);
  const std::vector<Tokens> texts{
      {1, 2, 3, 4}, {1, 2, 3, 5, 6}, {1, 2, 3}, {1, 2, 7}, {1, 2, 3, 4}};
  TokenPaths paths = Paths(texts, LastTokens(texts, 1));
  const auto prefix = std::make_shared<const Tokens>(Tokens{1, 2, 3});
  for (size_t i = 0; i < texts.size(); ++i) {
    TokenPaths::Path& path = paths.paths[i];
    path.prefix = prefix;
    path.prefix_size = i == 3 ? 2 : 3;
    path.tail.assign(texts[i].begin() + path.prefix_size, texts[i].end());
  }
  ExpectRight(texts, LastTokens(texts, 1), scorer->Score(paths, ""));
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 4u) << "1 2 3, and 5";
}

TEST(PathScorer, GroupedIsOnePrefillAContextAndOnePassAWord) {
  const auto scorer = HashScorer(1000, Mode::kGrouped);
  const std::vector<Tokens> texts{{1, 2, 3, 4, 5}, {1, 2, 3, 6}, {1, 2, 7, 8}};
  const std::vector<int32_t> begins{3, 3, 2};
  ExpectRight(texts, begins, scorer->Score(Paths(texts, begins), ""));
  // Contexts 1 2 3 and 1 2, then 4 of the first and 7 of the last text.
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 3u + 2u + 1u + 1u);
  EXPECT_EQ(StatsOf(*scorer).forwards, 4u);
}

TEST(PathScorer, UncachedSharesNothing) {
  const auto scorer = HashScorer(1000, Mode::kUncached);
  const std::vector<Tokens> texts{{1, 2, 3, 4, 5}, {1, 2, 3, 6}, {1, 2, 3, 6}};
  const std::vector<int32_t> begins{3, 3, 3};
  ExpectRight(texts, begins, scorer->Score(Paths(texts, begins), ""));
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 4u + 3u + 3u);
}

TEST(PathScorer, NothingToScoreComputesNothing) {
  const auto scorer = HashScorer(100);
  EXPECT_TRUE(scorer->Score(TokenPaths(), "").log_probs.empty());
  ExpectRight({{1, 2}, {}}, {2, 0}, scorer->Score(Paths({{1, 2}, {}}, {2, 0}), ""));
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 0u);
}

TEST(PathScorer, LeavesAreBoundedToo) {
  // Candidates that nothing is computed for take memory as well.
  const auto scorer = HashScorer(40);
  for (int32_t word = 0; word < 50; ++word) {
    for (int32_t next = 0; next < 50; next += 10) {
      std::vector<Tokens> texts;
      for (int32_t last = next; last < next + 10; ++last) texts.push_back({word, last});
      ExpectRight(texts, std::vector<int32_t>(10, 1),
                  scorer->Score(Paths(texts, std::vector<int32_t>(10, 1)), ""));
      ASSERT_LE(StatsOf(*scorer).cache_bytes, StatsOf(*scorer).cache_bytes_limit);
    }
  }
}

TEST(PathScorer, MistakesLeaveTheCacheRight) {
  auto model = std::make_unique<HashLM>();
  model->poisoned_token = 13;
  PathScorerOptions options;
  options.kv_cache_bytes = 30 * TokenBytes();
  const auto scorer = CachedPathScorer(std::move(model), options);
  const std::vector<Tokens> good{{1, 2, 3, 4}}, bad{{1, 2, 13, 4}, {1, 2, 3, 5}};
  EXPECT_THROW(scorer->Score(Paths(bad, {1, 1}), ""), NumericalError);
  EXPECT_EQ(StatsOf(*scorer).cached_tokens, 0);
  ExpectRight(good, {1}, scorer->Score(Paths(good, {1}), ""));
  EXPECT_EQ(StatsOf(*scorer).cached_tokens, 3);
  EXPECT_THROW(scorer->Score(Paths({{1, 2, 13, 4}}, {1}), ""), NumericalError);
  EXPECT_EQ(StatsOf(*scorer).cached_tokens, 3);
  EXPECT_THROW(scorer->Score(Paths({Tokens(31, 1)}, {1}), ""), CacheBudgetError);
  EXPECT_THROW(scorer->Score(Paths({{1, 50}}, {1}), ""), std::invalid_argument);
  EXPECT_THROW(scorer->Score(Paths({{-1, 5}}, {1}), ""), std::invalid_argument);
  EXPECT_THROW(scorer->Score(Paths({{1, 5}}, {0}), ""), std::invalid_argument);
  ExpectRight(good, {1}, scorer->Score(Paths(good, {1}), ""));
  ExpectRight({Tokens(30, 1)}, {1}, scorer->Score(Paths({Tokens(30, 1)}, {1}), ""));
  options.kv_cache_bytes = TokenBytes();
  EXPECT_THROW(CachedPathScorer(std::make_unique<HashLM>(), options), CacheBudgetError);
}

TEST(PathScorer, ReusedTellsWhatTheCacheHeld) {
  const auto scorer = HashScorer(100);
  scorer->Score(Paths({{1, 2, 3}}, {1}), "");
  CallReport report;
  scorer->Score(Paths({{1, 2, 3, 4}}, {1}), "", &report);
  EXPECT_EQ(report.reused, (std::vector<std::vector<bool>>{{true, true, false, false}}));
  EXPECT_EQ(report.tokens_computed, 1u);  // 3; nothing follows 4
  EXPECT_EQ(StatsOf(*scorer).tokens_reused, 2u);
}

TEST(PathScorer, WhatIsKnownIsNotAskedAgain) {
  auto model = std::make_unique<HashLM>();
  const HashLM& asked = *model;
  const auto scorer = ScorerOf(std::move(model), 100);
  for (int call = 0; call < 2; ++call) {
    ExpectScores(*scorer, {{1, 2, 3}}, 1);
    EXPECT_EQ(asked.normalizers_asked, 1) << "after 2";
    EXPECT_EQ(asked.logits_asked, 1) << "of 3";
  }
}

// A model that has memory for a few tokens at a time, or fails at a token.
class WeakLM final : public HashLM {
 public:
  void Forward(const BatchPlan& plan) override {
    if (plan.size() > most) throw OutOfDeviceMemory("no memory");
    HashLM::Forward(plan);
    if (plan.tokens.back() == failing_token) throw std::runtime_error("the model failed");
  }
  int64_t most = 512;
  int64_t failing_token = -1;
};

TEST(PathScorer, PassesThatHadNoMemoryAreNotCounted) {
  auto model = std::make_unique<WeakLM>();
  model->most = 2;
  const auto scorer = ScorerOf(std::move(model), 100);
  ExpectScores(*scorer, {{1, 2, 3, 4, 5}}, 1);
  EXPECT_EQ(StatsOf(*scorer).forwards, 2u);
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 4u);
}

TEST(PathScorer, ACallIsNotToldOfPassesOfOneThatFailed) {
  auto model = std::make_unique<WeakLM>();
  model->poisoned_token = 13;
  model->failing_token = 14;
  const auto scorer = ScorerOf(std::move(model), 100, Mode::kTree, 1);
  EXPECT_THROW(scorer->Score(Paths({{1, 13, 14, 2}}, {1}), ""), std::runtime_error);
  ExpectScores(*scorer, {{1, 2, 3}}, 1);
}

TEST(PathScorer, AReportTellsOfItsOwnCallOnly) {
  for (const Mode mode : {Mode::kTree, Mode::kGrouped, Mode::kUncached}) {
    const auto scorer = HashScorer(10000, mode);
    std::vector<uint64_t> computed(8, 0);
    std::vector<std::thread> threads;
    for (int32_t thread = 0; thread < 8; ++thread) {
      threads.emplace_back([&, thread] {
        for (int32_t call = 0; call < 20; ++call) {
          CallReport report;
          // Nothing is shared with another call, so each computes all but its last token.
          scorer->Score(Paths({{thread, call, 1, 2}}, {3}), std::to_string(call), &report);
          computed[thread] += report.tokens_computed;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(computed, std::vector<uint64_t>(8, 20 * 3));
    EXPECT_EQ(StatsOf(*scorer).tokens_computed, 8u * 20 * 3);
  }
}

TEST(PathScorer, ThreadsShareForwardsAndGetTheirOwnErrors) {
  auto model = std::make_unique<HashLM>();
  model->poisoned_token = 13;
  PathScorerOptions options;
  options.kv_cache_bytes = 200 * TokenBytes();
  const auto scorer = CachedPathScorer(std::move(model), options);
  std::vector<std::thread> threads;
  std::vector<int> failed(8, 0);
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(thread);
      for (int call = 0; call < 50; ++call) {
        auto texts = RandomTexts(random, 10, 15);
        const bool poisoned = random() % 4 == 0;
        for (Tokens& text : texts) {
          for (int32_t& token : text) token = token == 13 ? 14 : token;
        }
        if (poisoned) texts.push_back({1, 13, 2});
        const std::vector<int32_t> begins(texts.size(), 1);
        try {
          const PathScores scores = scorer->Score(Paths(texts, begins), "");
          EXPECT_FALSE(poisoned);
          ExpectRight(texts, begins, scores);
        } catch (const NumericalError&) {
          EXPECT_TRUE(poisoned);
          ++failed[thread];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int count : failed) EXPECT_GT(count, 0);
}

// Takes its time, as a real model does, so that calls come while it computes.
class SlowLM final : public HashLM {
 public:
  void Forward(const BatchPlan& plan) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    HashLM::Forward(plan);
  }
};

// Forward passes and tokens of `decoders` threads with a namespace each, in which nothing is
// shared: every decoder's text grows by a token a call.
Stats Decode(int decoders) {
  constexpr int kCalls = 25;
  PathScorerOptions options;
  options.kv_cache_bytes = 10000 * TokenBytes();
  const auto scorer = CachedPathScorer(std::make_unique<SlowLM>(), options);
  std::vector<std::thread> threads;
  for (int decoder = 0; decoder < decoders; ++decoder) {
    threads.emplace_back([&, decoder] {
      Tokens text{1, decoder};
      for (int call = 0; call < kCalls; ++call) {
        text.push_back(call);
        const auto begin = static_cast<int32_t>(text.size() - 1);
        ExpectRight({text}, {begin},
                    scorer->Score(Paths({text}, {begin}), "decoder " + std::to_string(decoder)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return StatsOf(*scorer);
}

TEST(PathScorer, EightDecodersShareForwardPasses) {
  const Stats one = Decode(1), eight = Decode(8);
  EXPECT_EQ(eight.tokens_computed, 8 * one.tokens_computed);
  EXPECT_EQ(one.forwards, 25u);
  // The seven that come while one computes are computed together: two passes a round, not eight.
  EXPECT_LE(eight.forwards, 8 * one.forwards / 2);
}

TEST(PathScorer, ManyNamespacesDoNotPileUp) {
  const auto scorer = HashScorer(20);
  for (int user = 0; user < 5000; ++user) {
    ExpectRight({{1, 2, 3}}, {1},
                scorer->Score(Paths({{1, 2, 3}}, {1}), "user " + std::to_string(user)));
    ASSERT_LE(StatsOf(*scorer).cache_bytes, StatsOf(*scorer).cache_bytes_limit + 1030 * 200);
  }
}

}  // namespace
}  // namespace lmfusion
