// Scoring without a cache, over a model that can be computed by hand.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cache/path_scorer.h"
#include "hash_lm.h"
#include "scored_paths.h"
#include "tree/plain_lm.h"

namespace lmfusion {
namespace {

class PlainHashLM final : public PlainLM {
 public:
  PlainHashLM() {
    description_.vocabulary_size = HashModel::kVocabulary;
    description_.max_positions = 30;
  }
  const ModelDescription& description() const override { return description_; }
  void SetWordBeginnings(const std::vector<bool>&) override {}
  Answers Score(const std::vector<std::vector<int32_t>>& paths, bool word_ends) override {
    largest_batch = std::max(largest_batch, paths.size());
    Answers answers;
    for (const std::vector<int32_t>& path : paths) {
      answers.log_probs.emplace_back();
      for (size_t i = 1; i < path.size(); ++i) {
        answers.log_probs.back().push_back(static_cast<float>(HashModel::LogProb(path, i)));
      }
      if (word_ends) answers.word_ends.push_back(static_cast<float>(HashModel::WordEnd(path)));
    }
    return answers;
  }
  size_t largest_batch = 0;

 private:
  ModelDescription description_;
};

TEST(PlainPathScorer, RandomCallsAreRight) {
  std::mt19937 random(1);
  for (const int64_t batch : {1, 8, 40, 512}) {
    PathScorerOptions options;
    options.max_batch_tokens = batch;
    auto model = std::make_unique<PlainHashLM>();
    const PlainHashLM* const counted = model.get();
    const auto scorer = PlainPathScorer(std::move(model), options);
    for (int call = 0; call < 40; ++call) {
      const std::vector<Tokens> texts = RandomTexts(random, 1 + random() % 12, 20);
      const std::vector<int32_t> begins = RandomBegins(random, texts);
      const bool ends_word = call % 3 == 0;
      CallReport report;
      ExpectRight(texts, begins, scorer->Score(Paths(texts, begins, ends_word), "", &report),
                  ends_word);
      uint64_t tokens = 0;
      for (size_t i = 0; i < texts.size(); ++i) {
        tokens += texts[i].size();
        EXPECT_EQ(report.reused.at(i), std::vector<bool>(texts[i].size(), false));
      }
      EXPECT_EQ(report.tokens_computed, tokens);
      ExpectRight(texts, begins, scorer->ScoreUncached(Paths(texts, begins)));
    }
    EXPECT_EQ(counted->largest_batch == 1, batch == 1);
    EXPECT_FALSE(StatsOf(*scorer).cached);
  }
}

TEST(PlainPathScorer, WhatHasNothingToScoreTakesNoPass) {
  const auto scorer = PlainPathScorer(std::make_unique<PlainHashLM>(), {});
  const std::vector<Tokens> texts{{}, {}};
  EXPECT_EQ(scorer->Score(Paths(texts, {0, 0}), "").log_probs, std::vector<std::vector<float>>(2));
  EXPECT_EQ(StatsOf(*scorer).forwards, 0u);
  ExpectScores(*scorer, {{}, {1, 2}}, 0);
}

TEST(PlainPathScorer, KeepsNothing) {
  const auto scorer = PlainPathScorer(std::make_unique<PlainHashLM>(), {});
  const TokenPaths paths = Paths({{1, 2, 3}, {1, 4}}, {1, 1}, true);
  scorer->Score(paths, "");
  scorer->Clear();
  const PathScores known = scorer->Known(paths, "");
  EXPECT_TRUE(std::isnan(known.log_probs.at(0).at(1)));
  EXPECT_TRUE(std::isnan(known.word_end.at(1)));
  EXPECT_EQ(scorer->Hold(std::make_shared<const Tokens>(Tokens{1, 2}), ""), nullptr);
  EXPECT_GT(scorer->Capacity(), int64_t{1} << 40);
  EXPECT_EQ(scorer->description().vocabulary_size, HashModel::kVocabulary);
  EXPECT_THROW(scorer->Prime(paths, ""), std::invalid_argument);
  EXPECT_THROW(scorer->Save("file", nullptr, ""), std::invalid_argument);
  EXPECT_THROW(scorer->Load("file", ""), std::invalid_argument);
}

TEST(PlainPathScorer, RefusesWrongPaths) {
  const auto scorer = PlainPathScorer(std::make_unique<PlainHashLM>(), {});
  const auto refused = [&](const TokenPaths& paths, const std::string& why) {
    try {
      scorer->Score(paths, "");
      ADD_FAILURE() << why;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  };
  refused(Paths({{1, 50}}, {1}), "token id 50");
  refused(Paths({{1, -1}}, {1}), "token id -1");
  refused(Paths({{50, 1}}, {1}), "token id 50");
  refused(Paths({{1, 2}}, {0}), "first token");
  refused(Paths({Tokens(31, 1)}, {1}), "31 tokens");
  EXPECT_NO_THROW(scorer->Score(Paths({Tokens(30, 1)}, {1}), ""));
  TokenPaths empty = Paths({{}}, {0});
  empty.paths[0].ends_word = true;
  refused(empty, "empty path");
}

}  // namespace
}  // namespace lmfusion
