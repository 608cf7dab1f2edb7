#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cache/path_scorer.h"
#include "hash_lm.h"
#include "lmfusion/call_watch.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"
#include "scorer/pruning.h"
#include "search/best_search.h"

namespace lmfusion {

inline constexpr int32_t kPoison = 49;  // computing it gives NaN

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

// Calls of every kind on one scorer, each against what is right.
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
      if (kind < 20) {
        Score(random);
      } else if (kind < 24) {
        ScoreWithFloors(random);
      } else if (kind < 26) {
        FindBest(random);
      } else if (kind < 27) {
        ScoreUncached(random);
      } else if (kind < 30 || settings_.mode != Mode::kTree) {
        ExpectKnownIsRight(random);
      } else if (kind < 33) {
        Prime(random);
      } else if (kind < 36) {
        Save(random);
      } else if (kind < 39) {
        Load(random);
      } else {
        Clear(random);
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
    // A call that its watch ends after some passes, as a deadline does; late enough, it is whole.
    int64_t passes = random() % 6 == 0 ? random() % 4 : kNever;
    const CallWatch watch([&](int64_t, int64_t) {
      if (passes-- == 0) throw Stop();
    });
    try {
      const PathScores scores =
          scorer_->Score(Paths(texts, begins, ends_word), Namespace(random), &report);
      ASSERT_FALSE(poisoned);
      ExpectRight(texts, begins, scores, ends_word);
    } catch (const NumericalError&) {
      ASSERT_TRUE(poisoned);
      return;
    } catch (const Stop&) {
      ASSERT_LT(passes, 0);
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

  // A candidate is given up at its first token below the floor, and only then.
  void ScoreWithFloors(std::mt19937& random) {
    const std::vector<Tokens> texts = Texts(random);
    const std::vector<int32_t> begins = RandomBegins(random, texts);
    std::vector<double> floors;
    for (size_t i = 0; i < texts.size(); ++i) floors.push_back(-1.0 * (random() % 60));
    const PathScores scores =
        ScoreWithPruning(*scorer_, Paths(texts, begins), floors, Namespace(random));
    for (size_t i = 0; i < texts.size(); ++i) {
      const double sum = SumOf(texts[i], begins[i]);
      const bool given_up = scores.log_probs[i].size() == 1 && std::isinf(scores.log_probs[i][0]);
      if (std::abs(sum - floors[i]) > kSumTolerance) {
        ASSERT_EQ(given_up, sum < floors[i]) << "path " << i;
      }
      if (!given_up) {
        ExpectRight({texts[i]}, {begins[i]}, OnlyPath(scores, i));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }

  // The best of a list, or, where it ends before it is found, what none can be better than.
  void FindBest(std::mt19937& random) {
    const std::vector<Tokens> texts = Texts(random);
    HypothesisLists lists;
    lists.paths = Paths(texts, std::vector<int32_t>(texts.size(), 1));
    lists.ends = {texts.size()};
    lists.bonus.assign(texts.size(), 0);
    std::vector<double> totals;
    for (const Tokens& text : texts) {
      lists.base.push_back(random() % 20);
      totals.push_back(lists.base.back() + SumOf(text, 1));
    }
    BestSearchOptions options;
    options.max_batch_tokens = settings_.batch;
    options.shares_prefixes = settings_.mode == Mode::kTree;
    BestSearch search(*scorer_, lists, options, Namespace(random));
    int64_t rounds = random() % 3 == 0 ? random() % 3 : kNever;
    while (!search.done() && rounds-- != 0) search.Round();
    const BestList found = search.Results().at(0);
    for (const BestHypothesis& one : found.beaten) {
      ASSERT_GE(one.total, totals[one.index] - kSumTolerance);
    }
    ASSERT_EQ(found.best.size(), 1u);
    const BestHypothesis& best = found.best[0];
    ASSERT_GE(best.total, totals[best.index] - kSumTolerance);
    if (!search.done()) return;
    ASSERT_TRUE(best.exact);
    ASSERT_NEAR(best.total, *std::max_element(totals.begin(), totals.end()), kSumTolerance);
    ASSERT_NEAR(best.total, totals[best.index], kSumTolerance);
    compared_scores += static_cast<int64_t>(texts[best.index].size()) - 1;
  }

  void ScoreUncached(std::mt19937& random) {
    const std::vector<Tokens> texts = Texts(random);
    const std::vector<int32_t> begins = RandomBegins(random, texts);
    const bool ends_word = random() % 3 == 0;
    ExpectRight(texts, begins, scorer_->ScoreUncached(Paths(texts, begins, ends_word)), ends_word);
  }

  // What the cache says without work.
  void ExpectKnownIsRight(std::mt19937& random) {
    const std::vector<Tokens> texts = Texts(random);
    const std::vector<int32_t> begins = RandomBegins(random, texts);
    const PathScores known = scorer_->Known(Paths(texts, begins), Namespace(random));
    for (size_t i = 0; i < texts.size(); ++i) {
      uint64_t hash = HashModel::Hash(texts[i], begins[i]);
      for (size_t k = 0; k < known.log_probs[i].size(); ++k) {
        const int32_t token = texts[i][begins[i] + k];
        if (!std::isnan(known.log_probs[i][k])) {
          ASSERT_NEAR(known.log_probs[i][k], HashModel::LogProbAfter(hash, token), kTolerance);
          ++compared_scores;
        }
        hash = HashModel::Extend(hash, token);
      }
    }
  }

  void Clear(std::mt19937& random) {
    if (random() % 2 == 0) {
      scorer_->Clear();
      if (settings_.threads == 1) {
        ASSERT_EQ(StatsOf(*scorer_).cached_tokens, 0);
      }
      return;
    }
    const std::string cleared = Namespace(random);
    scorer_->Clear(&cleared);
    if (settings_.threads > 1) return;
    const std::vector<Tokens> texts = Texts(random);
    const std::vector<int32_t> begins = RandomBegins(random, texts);
    for (const auto& path : scorer_->Known(Paths(texts, begins), cleared).log_probs) {
      for (const float log_prob : path) ASSERT_TRUE(std::isnan(log_prob));
    }
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

  static double SumOf(const Tokens& text, int32_t begin) {
    double sum = 0;
    uint64_t hash = HashModel::Hash(text, begin);
    for (size_t k = begin; k < text.size(); ++k) {
      sum += HashModel::LogProbAfter(hash, text[k]);
      hash = HashModel::Extend(hash, text[k]);
    }
    return sum;
  }
  static PathScores OnlyPath(const PathScores& scores, size_t i) {
    PathScores only{TokenPaths()};
    only.log_probs = {scores.log_probs[i]};
    only.word_end = {scores.word_end[i]};
    return only;
  }

  struct Stop {};
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  static constexpr double kSumTolerance = 20 * kTolerance;  // of the 20 tokens of a text

  const Settings settings_;
  const std::string folder_;
  const std::unique_ptr<PathScorer> scorer_;
};

}  // namespace lmfusion
