// The best of lists against sums of a model that can be computed by hand (hash_lm.h).

#include "search/best_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "hash_lm.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"

namespace lmfusion {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kEnough = 100000;

struct Lists {
  std::vector<std::vector<Tokens>> texts;  // [lists][hypotheses]
  std::vector<std::vector<double>> base;
  bool ends_word = false;
  bool in_pieces = false;  // each text as several paths, some of which have nothing to score

  TokenPaths PathsOf(const std::vector<Tokens>& all) const {
    if (!in_pieces) return Paths(all, std::vector<int32_t>(all.size(), 1), ends_word);
    TokenPaths paths;
    for (size_t i = 0; i < all.size(); ++i) {
      const auto middle = static_cast<int32_t>(1 + all[i].size() / 2);
      const auto add = [&](int32_t end, int32_t scored_begin, float sign, bool ends) {
        TokenPaths::Path& path = paths.paths.emplace_back();
        path.tail.assign(all[i].begin(), all[i].begin() + end);
        path.scored_begin = scored_begin;
        path.alternative = static_cast<int32_t>(i);
        path.sign = sign;
        path.ends_word = ends;
      };
      const auto size = static_cast<int32_t>(all[i].size());
      add(std::min(middle, size), 1, 1, false);
      add(1, 1, -1, false);
      add(size, std::min(middle, size), 1, ends_word);
      paths.candidate_of.push_back(static_cast<int32_t>(i));
    }
    paths.candidates = static_cast<int32_t>(all.size());
    return paths;
  }

  HypothesisLists Made() const {
    HypothesisLists made;
    std::vector<Tokens> all;
    for (size_t i = 0; i < texts.size(); ++i) {
      all.insert(all.end(), texts[i].begin(), texts[i].end());
      made.base.insert(made.base.end(), base[i].begin(), base[i].end());
      made.ends.push_back(all.size());
    }
    for (const Tokens& text : all) made.bonus.push_back(0.25 * static_cast<double>(text.size()));
    made.paths = PathsOf(all);
    return made;
  }
  double LogProb(size_t i, size_t j) const {
    const Tokens& text = texts[i][j];
    double sum = ends_word ? HashModel::WordEnd(text) : 0;
    for (size_t k = 1; k < text.size(); ++k) sum += HashModel::LogProb(text, k);
    return sum;
  }
  double Total(size_t i, size_t j, double weight) const {
    if (base[i][j] == -kInfinity) return -kInfinity;
    return base[i][j] + weight * LogProb(i, j) + 0.25 * static_cast<double>(texts[i][j].size());
  }
  // Indices of list i, best first.
  std::vector<int64_t> Order(size_t i, double weight) const {
    std::vector<double> totals;
    for (size_t j = 0; j < texts[i].size(); ++j) totals.push_back(Total(i, j, weight));
    std::vector<int64_t> order(totals.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return totals[a] > totals[b]; });
    return order;
  }
};

// Lists of 0 to 20 texts that branch and repeat; base scores that differ by some tokens' worth,
// some of them equal, few -infinity.
Lists RandomLists(std::mt19937& random, size_t count, bool ends_word = false) {
  Lists lists;
  lists.ends_word = ends_word;
  for (size_t i = 0; i < count; ++i) {
    const size_t size = random() % 21;
    lists.texts.push_back(size == 0 ? std::vector<Tokens>() : RandomTexts(random, size, 20));
    lists.base.emplace_back();
    for (size_t j = 0; j < size; ++j) {
      lists.base.back().push_back(random() % 30 == 0 ? -kInfinity
                                                     : static_cast<double>(random() % 60) / 2);
    }
  }
  return lists;
}

std::vector<BestList> Best(PathScorer& scorer, const Lists& lists, BestSearchOptions options,
                           const std::string& cache_namespace = "") {
  BestSearch search(scorer, lists.Made(), options, cache_namespace);
  while (!search.done()) search.Round();
  return search.Results();
}

void ExpectBest(const Lists& lists, const BestSearchOptions& options,
                const std::vector<BestList>& found) {
  ASSERT_EQ(found.size(), lists.texts.size());
  for (size_t i = 0; i < found.size(); ++i) {
    const std::vector<int64_t> order = lists.Order(i, options.weight);
    const size_t n = std::min(order.size(), static_cast<size_t>(options.n));
    ASSERT_EQ(found[i].best.size(), n);
    ASSERT_EQ(found[i].best.size() + found[i].beaten.size(), order.size());
    ASSERT_EQ(found[i].gap, 0) << "list " << i;
    for (size_t k = 0; k < n; ++k) {
      const BestHypothesis& one = found[i].best[k];
      ASSERT_EQ(one.index, order[k]) << "list " << i << " place " << k;
      ASSERT_TRUE(one.exact);
      ASSERT_NEAR(one.log_prob, lists.LogProb(i, one.index), 20 * kTolerance);
      if (one.total != -kInfinity) {
        ASSERT_NEAR(one.total, lists.Total(i, one.index, options.weight),
                    20 * kTolerance * (1 + std::abs(options.weight)));
      }
    }
    for (const BestHypothesis& one : found[i].beaten) {
      ASSERT_GE(one.log_prob, lists.LogProb(i, one.index) - 20 * kTolerance);
      ASSERT_GE(one.total, lists.Total(i, one.index, options.weight) -
                               20 * kTolerance * (1 + std::abs(options.weight)));
    }
  }
}

uint64_t Computed(const PathScorer& scorer) { return StatsOf(scorer).tokens_computed; }

TEST(BestSearch, IsWhatFullScoringGives) {
  std::mt19937 random(1);
  for (int round = 0; round < 150; ++round) {
    Lists lists = RandomLists(random, 1 + random() % 8, round % 3 == 0);
    lists.in_pieces = round % 4 == 1;
    BestSearchOptions options;
    options.weight = std::vector<double>{1, 0.3, 5, 0, -1}[random() % 5];
    options.n = 1 + static_cast<int64_t>(random() % 4);
    if (round % 10 == 0) options.n = 50;  // all
    options.max_batch_tokens = std::vector<int64_t>{1, 3, 16, 512}[random() % 4];
    options.shares_prefixes = round % 7 != 0;
    const Mode mode = options.shares_prefixes ? Mode::kTree : Mode::kUncached;
    const int64_t cache = std::vector<int64_t>{21, 40, 150, kEnough}[random() % 4];
    const auto scorer = HashScorer(cache, mode, options.max_batch_tokens);
    for (int again = 0; again < 2; ++again) {  // cold, and with what the first left
      ExpectBest(lists, options, Best(*scorer, lists, options, again == 0 ? "" : "other"));
      ExpectBest(lists, options, Best(*scorer, lists, options));
    }
    ASSERT_LE(StatsOf(*scorer).cache_bytes, StatsOf(*scorer).cache_bytes_limit);
  }
}

TEST(BestSearch, WhatIsTakenAwayIsAskedFirst) {
  // Two words a text: of the first the start of its text is taken away, of the second nothing.
  const std::vector<Tokens> texts{{1, 2, 3, 4, 5}, {1, 2, 6, 7}, {1, 8, 9}};
  HypothesisLists lists;
  std::vector<double> log_probs;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto add = [&](int32_t end, float sign) {
      TokenPaths::Path& path = lists.paths.paths.emplace_back();
      path.tail.assign(texts[i].begin(), texts[i].begin() + end);
      path.scored_begin = 1;
      path.alternative = static_cast<int32_t>(i);
      path.sign = sign;
    };
    add(static_cast<int32_t>(texts[i].size()), 1);
    add(2, -1);
    add(1, -1);  // empty
    lists.paths.candidate_of.push_back(static_cast<int32_t>(i));
    lists.base.push_back(10.0 * static_cast<double>(i));
    lists.bonus.push_back(0);
    log_probs.push_back(0);
    for (size_t k = 2; k < texts[i].size(); ++k) {
      log_probs.back() += HashModel::LogProb(texts[i], k);
    }
  }
  lists.paths.candidates = static_cast<int32_t>(texts.size());
  lists.ends = {texts.size()};
  const auto scorer = HashScorer(kEnough);
  BestSearchOptions options;
  options.n = static_cast<int64_t>(texts.size());
  BestSearch search(*scorer, lists, options, "");
  while (!search.done()) search.Round();
  const std::vector<BestList> found = search.Results();
  ASSERT_EQ(found[0].best.size(), texts.size());
  for (const BestHypothesis& one : found[0].best) {
    EXPECT_TRUE(one.exact);
    EXPECT_NEAR(one.log_prob, log_probs[one.index], 20 * kTolerance);
  }
}

TEST(BestSearch, EqualTotalsKeepTheOrderOfTheList) {
  Lists lists;
  const Tokens text{1, 2, 3, 4}, other{1, 2, 3, 4};
  lists.texts = {{{1, 9, 9, 9}, text, other, text}, {{1}, {1}}};
  lists.base = {{-100, 2, 2, 2}, {5, 5}};
  const auto scorer = HashScorer(kEnough);
  BestSearchOptions options;
  options.n = 2;
  const auto found = Best(*scorer, lists, options);
  EXPECT_EQ(found[0].best[0].index, 1);
  EXPECT_EQ(found[0].best[1].index, 2);
  EXPECT_EQ(found[1].best[0].index, 0);
  EXPECT_EQ(found[1].best[0].log_prob, 0);
}

TEST(BestSearch, BeatenTextsAreNotComputed) {
  // Far behind by their base scores: only the first text's tokens but the last go through the
  // model.
  Lists lists;
  lists.texts = {{{1, 2, 3, 4, 5}, {1, 7, 8, 9}, {1, 2, 8, 9, 9, 9}, {1, 7, 8, 8}}};
  lists.base = {{1000, 0, 0, 0}};
  const auto scorer = HashScorer(kEnough);
  BestSearchOptions options;
  const auto found = Best(*scorer, lists, options);
  ExpectBest(lists, options, found);
  EXPECT_EQ(Computed(*scorer), 4u);
  EXPECT_EQ(StatsOf(*scorer).forwards, 1u);
  for (const BestHypothesis& one : found[0].beaten) {
    EXPECT_FALSE(one.exact);
    EXPECT_LT(one.total, 10);
  }
  // A list of one needs its whole text, and what is in the cache needs nothing.
  lists.texts = {{{1, 2, 3, 4, 5}}};
  lists.base = {{0}};
  ExpectBest(lists, options, Best(*scorer, lists, options));
  EXPECT_EQ(Computed(*scorer), 4u);
}

TEST(BestSearch, ComputesLessThanFullScoringAndFillsItsPasses) {
  std::mt19937 random(2);
  uint64_t least = 0, full = 0, passes = 0;
  for (int round = 0; round < 20; ++round) {
    const Lists lists = RandomLists(random, 40);
    const auto all = HashScorer(kEnough), one = HashScorer(kEnough);
    const HypothesisLists made = lists.Made();
    all->Score(made.paths, "");
    full += Computed(*all);
    BestSearchOptions options;
    options.weight = 2;
    ExpectBest(lists, options, Best(*one, lists, options));
    least += Computed(*one);
    passes += StatsOf(*one).forwards;
  }
  EXPECT_LT(least * 2, full);
  EXPECT_GT(least, passes * 16);
}

TEST(BestSearch, KnownLogProbabilitiesCount) {
  std::mt19937 random(3);
  const Lists lists = RandomLists(random, 10);
  const auto scorer = HashScorer(kEnough);
  scorer->Score(lists.Made().paths, "");
  const uint64_t before = Computed(*scorer);
  BestSearchOptions options;
  const auto found = Best(*scorer, lists, options);
  ExpectBest(lists, options, found);
  EXPECT_EQ(Computed(*scorer), before);
  for (const BestList& list : found) {
    for (const BestHypothesis& one : list.beaten) EXPECT_TRUE(one.exact);
  }
}

TEST(BestSearch, AGapIsKept) {
  std::mt19937 random(4);
  uint64_t exact_tokens = 0, gap_tokens = 0;
  for (int round = 0; round < 30; ++round) {
    const Lists lists = RandomLists(random, 5);
    BestSearchOptions options;
    const auto exact = HashScorer(kEnough), near = HashScorer(kEnough);
    Best(*exact, lists, options);
    options.gap = 8;
    const auto found = Best(*near, lists, options);
    exact_tokens += Computed(*exact);
    gap_tokens += Computed(*near);
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i].best.empty()) continue;
      const int64_t best = lists.Order(i, options.weight)[0];
      ASSERT_LE(found[i].gap, options.gap);
      ASSERT_TRUE(found[i].best[0].exact);
      ASSERT_LE(lists.Total(i, best, options.weight),
                lists.Total(i, found[i].best[0].index, options.weight) + found[i].gap + 1e-3);
    }
  }
  EXPECT_LT(gap_tokens, exact_tokens);
}

TEST(BestSearch, WhatIsKnownWhenItIsLeftIsABound) {
  std::mt19937 random(5);
  for (int round = 0; round < 30; ++round) {
    const Lists lists = RandomLists(random, 4);
    const auto scorer = HashScorer(kEnough, Mode::kTree, 8);
    BestSearchOptions options;
    options.max_batch_tokens = 8;
    BestSearch search(*scorer, lists.Made(), options, "");
    for (int rounds = static_cast<int>(random() % 4); rounds > 0 && !search.done(); --rounds) {
      search.Round();
    }
    for (size_t i = 0; i < lists.texts.size(); ++i) {
      const BestList found = search.Results()[i];
      if (found.best.empty()) continue;
      const double most = lists.Total(i, lists.Order(i, options.weight)[0], options.weight);
      const BestHypothesis& first = found.best[0];
      if (!first.exact) {
        ASSERT_EQ(found.gap, kInfinity);
      }
      if (first.exact && first.total > -kInfinity) {
        ASSERT_LE(most, first.total + found.gap + 1e-3);
      }
      if (!first.exact) {
        ASSERT_GE(first.total, most - 1e-3);
      }
    }
  }
}

TEST(BestSearch, ThreadsShareACache) {
  std::mt19937 random(6);
  std::vector<Lists> lists;
  for (int i = 0; i < 8; ++i) lists.push_back(RandomLists(random, 6));
  const auto scorer = HashScorer(300, Mode::kTree, 32);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      BestSearchOptions options;
      options.max_batch_tokens = 32;
      options.n = 1 + i % 3;
      for (int again = 0; again < 4; ++again) {
        const Lists& these = lists[(i + again) % lists.size()];
        ExpectBest(these, options, Best(*scorer, these, options, i % 2 == 0 ? "" : "other"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(BestSearch, AModelThatFailsIsToldAndNothingWrongStays) {
  auto model = std::make_unique<HashLM>();
  model->poisoned_token = 13;
  const auto scorer = ScorerOf(std::move(model), kEnough);
  Lists lists;
  lists.texts = {{{1, 2, 13, 4}, {1, 2, 3, 5}}};
  lists.base = {{0, 0}};
  EXPECT_THROW(Best(*scorer, lists, {}), NumericalError);
  lists.texts = {{{1, 2, 3, 4}, {1, 2, 3, 5}}};
  ExpectBest(lists, {}, Best(*scorer, lists, {}));
}

}  // namespace
}  // namespace lmfusion
