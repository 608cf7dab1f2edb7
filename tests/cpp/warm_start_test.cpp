// Priming and cache snapshots against a model that can be computed by hand (hash_lm.h).

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "cache/cache_snapshot.h"
#include "cache/path_scorer.h"
#include "hash_lm.h"
#include "lmfusion/errors.h"
#include "tree/token_tree.h"

namespace lmfusion {
namespace {

using Tokens = std::vector<int32_t>;
constexpr double kTolerance = 2e-5;
constexpr int64_t kRoot = 1;  // the root's own node

int64_t NodeBytes() { return TokenTree::node_bytes(); }
int64_t SlotBytes() { return HashLM().slot_bytes(); }

// The last `scored` tokens of each path are scored; 0: a path to be primed.
TokenPaths Paths(const std::vector<Tokens>& texts, int32_t scored, bool ends_word = false) {
  TokenPaths paths;
  for (const Tokens& text : texts) {
    TokenPaths::Path path;
    path.tail = text;
    path.scored_begin = static_cast<int32_t>(text.size()) - scored;
    path.ends_word = ends_word;
    path.alternative = paths.candidates;
    paths.candidate_of.push_back(paths.candidates++);
    paths.paths.push_back(path);
  }
  return paths;
}

struct Made {
  HashLM* model;  // of the scorer
  std::unique_ptr<PathScorer> scorer;
};

Made Make(int64_t bytes = int64_t{1} << 20, Mode mode = Mode::kTree, uint64_t word_beginnings = 0) {
  auto model = std::make_unique<HashLM>();
  HashLM* const seen = model.get();
  PathScorerOptions options;
  options.mode = mode;
  options.kv_cache_bytes = bytes;
  options.word_beginnings = word_beginnings;
  return {seen, CachedPathScorer(std::move(model), options)};
}

Stats StatsOf(const PathScorer& scorer) {
  Stats stats;
  scorer.AddTo(&stats);
  return stats;
}

void ExpectRight(PathScorer* scorer, const std::vector<Tokens>& texts, int32_t scored,
                 const std::string& cache_namespace = "") {
  const PathScores scores = scorer->Score(Paths(texts, scored), cache_namespace);
  for (size_t i = 0; i < texts.size(); ++i) {
    for (int32_t k = 0; k < scored; ++k) {
      EXPECT_NEAR(scores.log_probs[i][k],
                  HashModel::LogProb(texts[i], texts[i].size() - scored + k), kTolerance);
    }
  }
}

class SnapshotTest : public testing::Test {
 protected:
  SnapshotTest()
      : folder_(std::filesystem::temp_directory_path() /
                ("lmfusion_warm_start_test" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~SnapshotTest() override { std::filesystem::remove_all(folder_); }
  std::string File(const std::string& name = "cache") const { return (folder_ / name).string(); }

  const std::filesystem::path folder_;
};

const std::vector<Tokens> kContexts{{1, 2, 3}, {1, 2, 4, 5}, {1}};

TEST(Prime, AContextIsReadyForItsWords) {
  const Made made = Make();
  EXPECT_EQ(made.scorer->Prime(Paths(kContexts, 0), ""), 5);  // 1, 2, 3, 4, 5
  EXPECT_EQ(made.scorer->Prime(Paths(kContexts, 0), ""), 0);
  const int forwards = made.model->forwards, asked = made.model->normalizers_asked;
  ExpectRight(made.scorer.get(), {{1, 2, 3, 7}, {1, 2, 3, 8}, {1, 2, 4, 5, 9}, {1, 6}}, 1);
  EXPECT_EQ(made.model->forwards, forwards);
  EXPECT_EQ(made.model->normalizers_asked, asked);
  EXPECT_EQ(StatsOf(*made.scorer).tokens_computed, 5u);
}

TEST(Prime, WordsAreScoredAndEndsOfWordsKnown) {
  const Made made = Make();
  const std::vector<Tokens> words{{1, 2}, {1, 3, 4}, {1, 3, 5, 6}};
  EXPECT_EQ(made.scorer->Prime(Paths(words, 1), ""), 3);            // 1, 3, 5
  EXPECT_EQ(made.scorer->Prime(Paths(kContexts, 0, true), ""), 4);  // 2, 3, 4, 5
  const int forwards = made.model->forwards, asked = made.model->normalizers_asked;
  ExpectRight(made.scorer.get(), words, 1);
  const PathScores scores = made.scorer->Score(Paths(kContexts, 0, true), "");
  for (size_t i = 0; i < kContexts.size(); ++i) {
    EXPECT_NEAR(scores.word_end[i], HashModel::WordEnd(kContexts[i]), kTolerance);
  }
  EXPECT_EQ(made.model->forwards, forwards);
  EXPECT_EQ(made.model->normalizers_asked, asked);
}

TEST(Prime, EvictsOthersButNothingOfItsOwn) {
  std::vector<Tokens> words;
  for (int32_t word = 0; word < 9; ++word) words.push_back({1, word, 20, word});
  // Slots of 1, nine words, nine times 20; nine leaves have none. More nodes than one piece holds.
  const int64_t needed = 19 * SlotBytes() + (kRoot + 28) * NodeBytes();
  for (const int64_t bytes : {needed, needed + 5}) {
    const Made made = Make(bytes);
    for (int32_t old = 0; old < 30; ++old) {
      ExpectRight(made.scorer.get(), {{1, 30 + old % 20, old, old}}, 1);
    }
    const uint64_t before = StatsOf(*made.scorer).tokens_computed;
    const int64_t computed = made.scorer->Prime(Paths(words, 1), "");
    EXPECT_GE(computed, 18);
    EXPECT_LE(computed, 19);
    const Stats primed = StatsOf(*made.scorer);
    EXPECT_EQ(primed.tokens_computed, before + computed);
    EXPECT_EQ(primed.cached_tokens, 19);
    EXPECT_LE(primed.cache_bytes, primed.cache_bytes_limit);
    ExpectRight(made.scorer.get(), words, 1);
    EXPECT_EQ(StatsOf(*made.scorer).tokens_computed, primed.tokens_computed);
  }
  {
    // The last tokens have slots that they need not have.
    const Made made = Make(needed);
    ExpectRight(made.scorer.get(), {{1, 2, 20, 2, 3}, {1, 3, 20, 3, 3}, {1, 40, 3}}, 1);
    made.scorer->Prime(Paths(words, 1), "");
    const Stats primed = StatsOf(*made.scorer);
    ExpectRight(made.scorer.get(), words, 1);
    EXPECT_EQ(StatsOf(*made.scorer).tokens_computed, primed.tokens_computed);
  }
  const Made made = Make(needed - 1);
  ExpectRight(made.scorer.get(), {{1, 2, 3}}, 1);
  const uint64_t before = StatsOf(*made.scorer).tokens_computed;
  try {
    made.scorer->Prime(Paths(words, 1), "");
    ADD_FAILURE() << "more than the cache holds was primed";
  } catch (const CacheBudgetError& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(needed)), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(StatsOf(*made.scorer).tokens_computed, before);
  ExpectRight(made.scorer.get(), words, 1);
}

TEST(Prime, NothingIsKeptInOtherModes) {
  for (const Mode mode : {Mode::kGrouped, Mode::kUncached}) {
    const Made made = Make(int64_t{1} << 20, mode);
    EXPECT_THROW(made.scorer->Prime(Paths(kContexts, 0), ""), std::invalid_argument);
    EXPECT_THROW(made.scorer->Save("cache", nullptr, ""), std::invalid_argument);
    EXPECT_THROW(made.scorer->Load("cache", ""), std::invalid_argument);
  }
}

TEST_F(SnapshotTest, WhatWasSavedIsThereAgain) {
  const std::vector<Tokens> texts{{1, 2, 3, 7}, {1, 2, 3, 8}, {1, 2, 4, 5, 9}, {1, 6}};
  const Made first = Make();
  ExpectRight(first.scorer.get(), texts, 1);
  ExpectRight(first.scorer.get(), {{1, 40, 41}}, 1, "another namespace");
  EXPECT_EQ(first.scorer->Save(File(), nullptr, ""), 5);
  EXPECT_EQ(StatsOf(*first.scorer).tokens_computed, 7u);

  const Made second = Make();
  EXPECT_EQ(second.scorer->Load(File(), ""), 5);
  EXPECT_EQ(StatsOf(*second.scorer).cached_tokens, 5);
  EXPECT_EQ(StatsOf(*second.scorer).cache_bytes, 5 * SlotBytes() + (kRoot + 9) * NodeBytes());
  ExpectRight(second.scorer.get(), texts, 1);
  EXPECT_EQ(second.model->forwards, 0);
  EXPECT_EQ(second.model->normalizers_asked, 0);
  // And what follows: the model reads the slots that were loaded.
  ExpectRight(second.scorer.get(), {{1, 2, 3, 7, 8}, {1, 2, 4, 5, 9, 10}}, 1);
  EXPECT_EQ(StatsOf(*second.scorer).tokens_computed, 2u);
  EXPECT_EQ(second.scorer->Load(File(), ""), 0);
  EXPECT_EQ(second.scorer->Load(File(), "another namespace"), 5);
  ExpectRight(second.scorer.get(), texts, 1, "another namespace");
  EXPECT_EQ(StatsOf(*second.scorer).tokens_computed, 2u);
}

TEST_F(SnapshotTest, OnlyTheContextsThatAreNamed) {
  const Made first = Make();
  first.scorer->Prime(Paths(kContexts, 0), "");
  first.scorer->Prime(Paths({{1, 30, 31, 32}}, 0), "");
  const TokenPaths some = Paths({{1, 2, 3}, {1, 2, 44}}, 0);
  EXPECT_EQ(first.scorer->Save(File(), &some, ""), 3);
  const Made second = Make();
  EXPECT_EQ(second.scorer->Load(File(), ""), 3);
  ExpectRight(second.scorer.get(), {{1, 2, 3, 7}}, 1);
  EXPECT_EQ(second.model->forwards, 0);
  EXPECT_EQ(second.model->normalizers_asked, 0);
}

TEST_F(SnapshotTest, LoadingMakesRoomAndLaterCallsDoToo) {
  const Made first = Make();
  std::vector<Tokens> texts;
  for (int32_t i = 0; i < 10; ++i) texts.push_back({1, i, i, i});
  ExpectRight(first.scorer.get(), texts, 2);
  ASSERT_EQ(first.scorer->Save(File(), nullptr, ""), 21);
  const int64_t needed = 21 * SlotBytes() + (kRoot + 31) * NodeBytes();

  const Made second = Make(needed);
  for (int32_t i = 0; i < 20; ++i) ExpectRight(second.scorer.get(), {{1, 20 + i, i, i}}, 1);
  second.scorer->Load(File(), "");
  const Stats loaded = StatsOf(*second.scorer);
  EXPECT_EQ(loaded.cached_tokens, 21);
  EXPECT_LE(loaded.cache_bytes, loaded.cache_bytes_limit);
  ExpectRight(second.scorer.get(), texts, 2);
  EXPECT_EQ(StatsOf(*second.scorer).tokens_computed, loaded.tokens_computed);
  for (int32_t i = 0; i < 40; ++i) {  // what is evicted is computed anew
    ExpectRight(second.scorer.get(), {{1, 10 + i % 30, i, i}}, 2);
    ExpectRight(second.scorer.get(), {texts[i % 10]}, 2);
    ExpectRight(second.scorer.get(), {{1, i % 10, i % 10, i % 10, i}}, 1);
    EXPECT_LE(StatsOf(*second.scorer).cache_bytes, needed);
  }
  EXPECT_GT(StatsOf(*second.scorer).evictions, loaded.evictions);

  const Made tight = Make(needed);  // the last token has a slot that it has not in the file
  ExpectRight(tight.scorer.get(), {{1, 2, 2, 2, 2}}, 1);
  EXPECT_GE(tight.scorer->Load(File(), ""), 18);
  EXPECT_EQ(StatsOf(*tight.scorer).cached_tokens, 21);
  EXPECT_LE(StatsOf(*tight.scorer).cache_bytes, needed);
  ExpectRight(tight.scorer.get(), texts, 2);
  EXPECT_EQ(StatsOf(*tight.scorer).tokens_computed, 4u);

  const Made small = Make(needed - 1);
  ExpectRight(small.scorer.get(), {{1, 2, 2}}, 1);
  EXPECT_THROW(small.scorer->Load(File(), ""), CacheBudgetError);
  EXPECT_EQ(StatsOf(*small.scorer).cached_tokens, 2);
  ExpectRight(small.scorer.get(), texts, 2);
}

TEST_F(SnapshotTest, EndsOfWordsOnlyForTheSameWords) {
  const Made first = Make(int64_t{1} << 20, Mode::kTree, 5);
  first.scorer->Prime(Paths(kContexts, 0, true), "");
  first.scorer->Save(File(), nullptr, "");
  for (const uint64_t beginnings : {5, 6, 0}) {
    const Made second = Make(int64_t{1} << 20, Mode::kTree, beginnings);
    second.scorer->Load(File(), "");
    const PathScores scores = second.scorer->Score(Paths(kContexts, 0, true), "");
    for (size_t i = 0; i < kContexts.size(); ++i) {
      EXPECT_NEAR(scores.word_end[i], HashModel::WordEnd(kContexts[i]), kTolerance);
    }
    EXPECT_EQ(second.model->forwards, 0);
    EXPECT_EQ(second.model->normalizers_asked > 0, beginnings != 5);
  }
}

std::string Content(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST_F(SnapshotTest, DamageIsFoundWhereverItIs) {
  const Made first = Make();
  first.scorer->Prime(Paths(kContexts, 0), "");
  first.scorer->Save(File(), nullptr, "");
  const std::string good = Content(File());
  ASSERT_GT(good.size(), 600u);
  const Made second = Make();
  const auto load = [&](const std::string& content) {
    std::ofstream(File("bad"), std::ios::binary) << content;
    second.scorer->Load(File("bad"), "");
  };
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] ^= at % 3 == 0 ? '\x01' : '\x80';
    EXPECT_THROW(load(bad), CacheFileError) << "byte " << at;
  }
  for (size_t size = 0; size < good.size(); size += 5) {
    EXPECT_THROW(load(good.substr(0, size)), CacheFileError) << size << " bytes";
  }
  EXPECT_THROW(load(good + '\0'), CacheFileError);
  EXPECT_THROW(second.scorer->Load(File("nothing"), ""), CacheFileError);
  EXPECT_EQ(StatsOf(*second.scorer).cached_tokens, 0);
  EXPECT_EQ(StatsOf(*second.scorer).cache_bytes, kRoot * NodeBytes());
  load(good);
  EXPECT_EQ(StatsOf(*second.scorer).cached_tokens, 5);
}

TEST_F(SnapshotTest, AnotherModelIsRefusedByName) {
  const Made first = Make();
  first.scorer->Prime(Paths(kContexts, 0), "");
  first.scorer->Save(File(), nullptr, "");
  const Made other = Make();
  other.model->slot_format = "two tokens";
  try {
    other.scorer->Load(File(), "");
    ADD_FAILURE() << "another model's snapshot was loaded";
  } catch (const CacheFileError& error) {
    EXPECT_NE(
        std::string(error.what()).find("slots is \"a token and a hash\", here \"two tokens\""),
        std::string::npos)
        << error.what();
  }
}

TEST_F(SnapshotTest, AFileThatCannotBeWrittenLeavesTheOldOne) {
  const Made first = Make();
  first.scorer->Prime(Paths(kContexts, 0), "");
  EXPECT_THROW(first.scorer->Save(File("no such folder/cache"), nullptr, ""), CacheFileError);
  std::filesystem::create_directories(File("folder/inside"));
  EXPECT_THROW(first.scorer->Save(File("folder"), nullptr, ""), CacheFileError);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);  // no left-overs
  EXPECT_EQ(first.scorer->Save(File(), nullptr, ""), 5);
  EXPECT_EQ(first.scorer->Save(File(), nullptr, ""), 5);
  EXPECT_EQ(Make().scorer->Load(File(), ""), 5);
}

}  // namespace
}  // namespace lmfusion
