// Candidates of several paths, some of which are subtracted: tokens of a context that a text
// changes. Searching and pruning, against sums by hand (hash_lm.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "hash_lm.h"
#include "scored_paths.h"
#include "scorer/pruning.h"
#include "search/best_search.h"

namespace lmfusion {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double SumOf(const Tokens& text) {
  double sum = 0;
  for (size_t k = 1; k < text.size(); ++k) sum += HashModel::LogProb(text, k);
  return sum;
}

// Candidates of two paths: the second is subtracted; an empty one is left out. All are scored from
// their second token on.
struct Candidates {
  std::vector<std::pair<Tokens, Tokens>> texts;

  TokenPaths Paths() const {
    TokenPaths paths;
    const auto add = [&](const Tokens& text, float sign) {
      TokenPaths::Path path;
      path.tail = text;
      path.scored_begin = 1;
      path.alternative = paths.candidates;
      path.sign = sign;
      paths.paths.push_back(path);
    };
    for (const auto& [text, subtracted] : texts) {
      paths.candidate_of.push_back(paths.candidates);
      add(text, 1);
      if (!subtracted.empty()) add(subtracted, -1);
      ++paths.candidates;
    }
    return paths;
  }
  double LogProb(size_t i) const {
    return SumOf(texts[i].first) - (texts[i].second.empty() ? 0 : SumOf(texts[i].second));
  }
};

Candidates RandomCandidates(std::mt19937& random, size_t count) {
  Candidates candidates;
  const std::vector<Tokens> texts = RandomTexts(random, count, 12);
  for (const Tokens& text : texts) {
    // A beginning of another text; one token has no score to subtract.
    Tokens subtracted = texts[random() % texts.size()];
    subtracted.resize(std::min<size_t>(subtracted.size(), random() % 4));
    candidates.texts.emplace_back(text, subtracted);
  }
  return candidates;
}

HypothesisLists OneList(const Candidates& candidates) {
  HypothesisLists lists;
  lists.paths = candidates.Paths();
  lists.ends = {candidates.texts.size()};
  lists.base.assign(candidates.texts.size(), 0.0);
  lists.bonus.assign(candidates.texts.size(), 0.0);
  return lists;
}

TEST(SubtractedPaths, TheBestIsThatOfFullSums) {
  std::mt19937 random(1);
  for (int round = 0; round < 60; ++round) {
    const Candidates candidates = RandomCandidates(random, 1 + random() % 20);
    const bool shares = round % 3 != 0;
    BestSearchOptions options;
    options.shares_prefixes = shares;
    options.max_batch_tokens = 1 + static_cast<int64_t>(random() % 20);
    const auto scorer = HashScorer(1000, shares ? Mode::kTree : Mode::kUncached);
    BestSearch search(*scorer, OneList(candidates), options, "");
    const auto count = static_cast<int64_t>(candidates.texts.size());
    // Before anything is known there is no bound, and so no winner.
    const BestList first = search.Results()[0];
    if (count > 1 && !first.best[0].exact) {
      EXPECT_EQ(first.gap, kInfinity);
    }
    int64_t settled = search.settled();
    EXPECT_LE(settled, count);
    while (!search.done()) {
      search.Round();
      EXPECT_GE(search.settled(), settled);
      settled = search.settled();
    }
    EXPECT_EQ(settled, count);
    double best = -kInfinity;
    for (size_t i = 0; i < candidates.texts.size(); ++i) {
      best = std::max(best, candidates.LogProb(i));
    }
    const BestList found = search.Results()[0];
    ASSERT_TRUE(found.best[0].exact);
    EXPECT_EQ(found.gap, 0);
    EXPECT_NEAR(found.best[0].log_prob, candidates.LogProb(found.best[0].index), 1e-3);
    EXPECT_NEAR(found.best[0].log_prob, best, 1e-3);
    for (const BestHypothesis& one : found.beaten) {
      EXPECT_GE(one.log_prob, candidates.LogProb(one.index) - 1e-3);
    }
  }
}

TEST(BestSearch, WhatIsNearTheBestIsScoredToo) {
  std::mt19937 random(2);
  int64_t near = 0, left = 0;
  for (int round = 0; round < 30; ++round) {
    Candidates candidates;
    for (const Tokens& text : RandomTexts(random, 20, 20)) candidates.texts.push_back({text, {}});
    BestSearchOptions options;
    options.within = 4;
    options.max_batch_tokens = 8;
    const auto scorer = HashScorer(1000);
    HypothesisLists lists = OneList(candidates);
    lists.base[3] = -kInfinity;  // near nothing
    BestSearch search(*scorer, lists, options, "");
    while (!search.done()) search.Round();
    const BestList found = search.Results()[0];
    for (const BestHypothesis& one : found.beaten) {
      if (one.index == 3) continue;
      const bool is_near =
          candidates.LogProb(one.index) > found.best[0].total - options.within + 1e-3;
      near += is_near ? 1 : 0;
      left += one.exact ? 0 : 1;
      if (is_near) {
        EXPECT_TRUE(one.exact);
        EXPECT_NEAR(one.log_prob, candidates.LogProb(one.index), 1e-3);
      }
    }
  }
  EXPECT_GT(near, 0);
  EXPECT_GT(left, 0);
}

TEST(BestSearch, ListsThatWaitForOthersAreDoneToo) {
  // A cache that holds the texts of one list at a time.
  std::mt19937 random(3);
  Candidates candidates;
  for (int i = 0; i < 12; ++i) {
    candidates.texts.push_back({{1, 2 + i, 3, 4, 5, 6, 7, 8}, {}});
    candidates.texts.push_back({{1, 2 + i, 3, 9, 8, 7, 6, 5}, {}});
  }
  HypothesisLists lists = OneList(candidates);
  lists.ends.clear();
  for (size_t end = 2; end <= candidates.texts.size(); end += 2) lists.ends.push_back(end);
  BestSearchOptions options;
  options.max_batch_tokens = 4;
  const auto scorer = HashScorer(20, Mode::kTree, 4);
  BestSearch search(*scorer, lists, options, "");
  bool waits = false;  // nobody is open, others have not begun
  while (!search.done()) {
    search.Round();
    waits = waits || search.settled() < static_cast<int64_t>(candidates.texts.size());
  }
  EXPECT_TRUE(waits);
  const std::vector<BestList> found = search.Results();
  for (size_t i = 0; i < found.size(); ++i) {
    const double a = candidates.LogProb(2 * i), b = candidates.LogProb(2 * i + 1);
    EXPECT_EQ(found[i].best[0].index, a > b ? 0 : 1) << "list " << i;
  }
}

TEST(Pruning, CandidatesOfSeveralPathsAreScoredWhole) {
  std::mt19937 random(4);
  const Candidates candidates = RandomCandidates(random, 30);
  const TokenPaths paths = candidates.Paths();
  const auto scorer = HashScorer(1000);
  const std::vector<double> thresholds(candidates.texts.size(), -3.0);
  const PathScores scores = ScoreWithPruning(*scorer, paths, thresholds, "");
  int whole = 0, pruned = 0;
  for (size_t p = 0; p < paths.paths.size(); ++p) {
    const TokenPaths::Path& path = paths.paths[p];
    const bool alone = candidates.texts[path.alternative].second.empty();
    const Tokens text = path.tokens();
    double sum = 0;
    for (const float log_prob : scores.log_probs[p]) sum += log_prob;
    if (alone && SumOf(text) < -3.0) {
      EXPECT_EQ(sum, -kInfinity);
      ++pruned;
    } else {
      EXPECT_NEAR(sum, SumOf(text), 1e-3);
      whole += alone ? 0 : 1;
    }
  }
  EXPECT_GT(whole, 0);
  EXPECT_GT(pruned, 0);
}

TEST(Pruning, APathThatIsSubtractedHasNoFloor) {
  TokenPaths paths = Paths({{1, 2, 3, 4}}, {1});
  paths.paths[0].sign = -1;
  const auto scorer = HashScorer(100);
  const PathScores scores = ScoreWithPruning(*scorer, paths, {-0.01}, "");
  EXPECT_EQ(scores.log_probs[0].size(), 3u);
}

}  // namespace
}  // namespace lmfusion
