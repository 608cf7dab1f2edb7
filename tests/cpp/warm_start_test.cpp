// Priming and cache snapshots against a model that can be computed by hand (hash_lm.h).

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/checksum.h"
#include "cache/cache_snapshot.h"
#include "cache/needed_bytes.h"
#include "cache/path_scorer.h"
#include "hash_lm.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"

namespace lmfusion {
namespace {

constexpr int64_t kRoot = 1;  // the root's own node

// The last `scored` tokens of each path are scored; 0: a path to be primed.
TokenPaths LastOf(const std::vector<Tokens>& texts, int32_t scored, bool ends_word = false) {
  return Paths(texts, LastTokens(texts, scored), ends_word);
}

struct Made {
  HashLM* model;  // of the scorer
  std::unique_ptr<PathScorer> scorer;
};

Made Make(int64_t bytes = int64_t{1} << 20, Mode mode = Mode::kTree, uint64_t word_beginnings = 0,
          const std::string& slot_format = HashLM().slot_format) {
  auto model = std::make_unique<HashLM>();
  model->slot_format = slot_format;
  HashLM* const seen = model.get();
  PathScorerOptions options;
  options.mode = mode;
  options.kv_cache_bytes = bytes;
  options.word_beginnings = word_beginnings;
  return {seen, CachedPathScorer(std::move(model), options)};
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
  EXPECT_EQ(made.scorer->Prime(LastOf(kContexts, 0), ""), 5);  // 1, 2, 3, 4, 5
  const int forwards = made.model->forwards, asked = made.model->normalizers_asked;
  EXPECT_EQ(made.scorer->Prime(LastOf(kContexts, 0), ""), 0);
  ExpectScores(*made.scorer, {{1, 2, 3, 7}, {1, 2, 3, 8}, {1, 2, 4, 5, 9}, {1, 6}}, 1);
  EXPECT_EQ(made.model->forwards, forwards);
  EXPECT_EQ(made.model->normalizers_asked, asked);
  EXPECT_EQ(StatsOf(*made.scorer).tokens_computed, 5u);
}

TEST(Prime, WordsAreScoredAndEndsOfWordsKnown) {
  const Made made = Make();
  const std::vector<Tokens> words{{1, 2}, {1, 3, 4}, {1, 3, 5, 6}};
  EXPECT_EQ(made.scorer->Prime(LastOf(words, 1), ""), 3);            // 1, 3, 5
  EXPECT_EQ(made.scorer->Prime(LastOf(kContexts, 0, true), ""), 4);  // 2, 3, 4, 5
  const int forwards = made.model->forwards, asked = made.model->normalizers_asked;
  ExpectScores(*made.scorer, words, 1);
  const PathScores scores = made.scorer->Score(LastOf(kContexts, 0, true), "");
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
      ExpectScores(*made.scorer, {{1, 30 + old % 20, old, old}}, 1);
    }
    const uint64_t before = StatsOf(*made.scorer).tokens_computed;
    const int64_t computed = made.scorer->Prime(LastOf(words, 1), "");
    EXPECT_GE(computed, 18);
    EXPECT_LE(computed, 19);
    const Stats primed = StatsOf(*made.scorer);
    EXPECT_EQ(primed.tokens_computed, before + computed);
    EXPECT_EQ(primed.cached_tokens, 19);
    EXPECT_LE(primed.cache_bytes, primed.cache_bytes_limit);
    ExpectScores(*made.scorer, words, 1);
    EXPECT_EQ(StatsOf(*made.scorer).tokens_computed, primed.tokens_computed);
  }
  {
    // The last tokens have slots that they need not have.
    const Made made = Make(needed);
    ExpectScores(*made.scorer, {{1, 2, 20, 2, 3}, {1, 3, 20, 3, 3}, {1, 40, 3}}, 1);
    made.scorer->Prime(LastOf(words, 1), "");
    const Stats primed = StatsOf(*made.scorer);
    ExpectScores(*made.scorer, words, 1);
    EXPECT_EQ(StatsOf(*made.scorer).tokens_computed, primed.tokens_computed);
  }
  const Made made = Make(needed - 1);
  ExpectScores(*made.scorer, {{1, 2, 3}}, 1);
  const uint64_t before = StatsOf(*made.scorer).tokens_computed;
  try {
    made.scorer->Prime(LastOf(words, 1), "");
    ADD_FAILURE() << "more than the cache holds was primed";
  } catch (const CacheBudgetError& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(needed)), std::string::npos)
        << error.what();
  }
  EXPECT_EQ(StatsOf(*made.scorer).tokens_computed, before);
  ExpectScores(*made.scorer, words, 1);
}

TEST(Prime, NothingIsKeptInOtherModes) {
  for (const Mode mode : {Mode::kGrouped, Mode::kUncached}) {
    const Made made = Make(int64_t{1} << 20, mode);
    EXPECT_THROW(made.scorer->Prime(LastOf(kContexts, 0), ""), std::invalid_argument);
    EXPECT_THROW(made.scorer->Save("cache", nullptr, ""), std::invalid_argument);
    EXPECT_THROW(made.scorer->Load("cache", ""), std::invalid_argument);
  }
}

TEST_F(SnapshotTest, WhatWasSavedIsThereAgain) {
  const std::vector<Tokens> texts{{1, 2, 3, 7}, {1, 2, 3, 8}, {1, 2, 4, 5, 9}, {1, 6}};
  const Made first = Make();
  ExpectScores(*first.scorer, texts, 1);
  ExpectScores(*first.scorer, {{1, 40, 41}}, 1, "another namespace");
  EXPECT_EQ(first.scorer->Save(File(), nullptr, ""), 5);
  EXPECT_EQ(StatsOf(*first.scorer).tokens_computed, 7u);

  const Made second = Make();
  EXPECT_EQ(second.scorer->Load(File(), ""), 5);
  EXPECT_EQ(StatsOf(*second.scorer).cached_tokens, 5);
  EXPECT_EQ(StatsOf(*second.scorer).cache_bytes, 5 * SlotBytes() + (kRoot + 9) * NodeBytes());
  ExpectScores(*second.scorer, texts, 1);
  EXPECT_EQ(second.model->forwards, 0);
  EXPECT_EQ(second.model->normalizers_asked, 0);
  // And what follows: the model reads the slots that were loaded.
  ExpectScores(*second.scorer, {{1, 2, 3, 7, 8}, {1, 2, 4, 5, 9, 10}}, 1);
  EXPECT_EQ(StatsOf(*second.scorer).tokens_computed, 2u);
  EXPECT_EQ(second.scorer->Load(File(), ""), 0);
  EXPECT_EQ(second.scorer->Load(File(), "another namespace"), 5);
  ExpectScores(*second.scorer, texts, 1, "another namespace");
  EXPECT_EQ(StatsOf(*second.scorer).tokens_computed, 2u);
}

TEST_F(SnapshotTest, OnlyTheContextsThatAreNamed) {
  const Made first = Make();
  first.scorer->Prime(LastOf(kContexts, 0), "");
  first.scorer->Prime(LastOf({{1, 30, 31, 32}}, 0), "");
  const TokenPaths some = LastOf({{1, 2, 3}, {1, 2, 44}}, 0);
  EXPECT_EQ(first.scorer->Save(File(), &some, ""), 3);
  const Made second = Make();
  EXPECT_EQ(second.scorer->Load(File(), ""), 3);
  ExpectScores(*second.scorer, {{1, 2, 3, 7}}, 1);
  EXPECT_EQ(second.model->forwards, 0);
  EXPECT_EQ(second.model->normalizers_asked, 0);
}

TEST_F(SnapshotTest, LoadingMakesRoomAndLaterCallsDoToo) {
  const Made first = Make();
  std::vector<Tokens> texts;
  for (int32_t i = 0; i < 10; ++i) texts.push_back({1, i, i, i});
  ExpectScores(*first.scorer, texts, 2);
  ASSERT_EQ(first.scorer->Save(File(), nullptr, ""), 21);
  const int64_t needed = 21 * SlotBytes() + (kRoot + 31) * NodeBytes();

  const Made second = Make(needed);
  for (int32_t i = 0; i < 20; ++i) ExpectScores(*second.scorer, {{1, 20 + i, i, i}}, 1);
  second.scorer->Load(File(), "");
  const Stats loaded = StatsOf(*second.scorer);
  EXPECT_EQ(loaded.cached_tokens, 21);
  EXPECT_LE(loaded.cache_bytes, loaded.cache_bytes_limit);
  ExpectScores(*second.scorer, texts, 2);
  EXPECT_EQ(StatsOf(*second.scorer).tokens_computed, loaded.tokens_computed);
  for (int32_t i = 0; i < 40; ++i) {  // what is evicted is computed anew
    ExpectScores(*second.scorer, {{1, 10 + i % 30, i, i}}, 2);
    ExpectScores(*second.scorer, {texts[i % 10]}, 2);
    ExpectScores(*second.scorer, {{1, i % 10, i % 10, i % 10, i}}, 1);
    EXPECT_LE(StatsOf(*second.scorer).cache_bytes, needed);
  }
  EXPECT_GT(StatsOf(*second.scorer).evictions, loaded.evictions);

  const Made tight = Make(needed);  // the last token has a slot that it has not in the file
  ExpectScores(*tight.scorer, {{1, 2, 2, 2, 2}}, 1);
  EXPECT_GE(tight.scorer->Load(File(), ""), 18);
  EXPECT_EQ(StatsOf(*tight.scorer).cached_tokens, 21);
  EXPECT_LE(StatsOf(*tight.scorer).cache_bytes, needed);
  ExpectScores(*tight.scorer, texts, 2);
  EXPECT_EQ(StatsOf(*tight.scorer).tokens_computed, 4u);

  const Made small = Make(needed - 1);
  ExpectScores(*small.scorer, {{1, 2, 2}}, 1);
  EXPECT_THROW(small.scorer->Load(File(), ""), CacheBudgetError);
  EXPECT_EQ(StatsOf(*small.scorer).cached_tokens, 2);
  ExpectScores(*small.scorer, texts, 2);
}

TEST_F(SnapshotTest, EndsOfWordsOnlyForTheSameWords) {
  const Made first = Make(int64_t{1} << 20, Mode::kTree, 5);
  first.scorer->Prime(LastOf(kContexts, 0, true), "");
  first.scorer->Save(File(), nullptr, "");
  for (const uint64_t beginnings : {5, 6, 0}) {
    const Made second = Make(int64_t{1} << 20, Mode::kTree, beginnings);
    second.scorer->Load(File(), "");
    const PathScores scores = second.scorer->Score(LastOf(kContexts, 0, true), "");
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
  first.scorer->Prime(LastOf(kContexts, 0), "");
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

// Changes a snapshot's bytes and makes its checksum that of what it now holds.
std::string WithChecksum(std::string content) {
  const size_t end = content.size() - sizeof(uint32_t);
  const uint32_t sum = Checksum(content.data(), end, 0);
  std::memcpy(content.data() + end, &sum, sizeof sum);
  return content;
}

TEST_F(SnapshotTest, NumbersThatCannotBeAreFoundUnderARightChecksum) {
  const Made first = Make();
  first.scorer->Prime(LastOf(kContexts, 0), "");
  first.scorer->Save(File(), nullptr, "");
  const std::string good = Content(File());
  uint32_t identity_bytes;
  std::memcpy(&identity_bytes, &good[12], sizeof identity_bytes);
  // Of five nodes [parent, token, three numbers, has a slot], from here on.
  const size_t nodes = 48 + identity_bytes;
  const auto error = [&](size_t at, int32_t value) {
    std::string bad = good;
    std::memcpy(&bad[at], &value, sizeof value);
    std::ofstream(File("bad"), std::ios::binary) << WithChecksum(bad);
    const Made other = Make();
    try {
      other.scorer->Load(File("bad"), "");
    } catch (const CacheFileError& wrong) {
      EXPECT_EQ(StatsOf(*other.scorer).cached_tokens, 0);
      return std::string(wrong.what());
    }
    return std::string();
  };
  const auto says = [](const std::string& text, const char* what) {
    return text.find(what) != std::string::npos;
  };
  constexpr const char* kTree = "its tree is not one of this model";
  for (const int32_t parent : {-2, 1, 5}) EXPECT_TRUE(says(error(nodes + 24, parent), kTree));
  for (const int32_t token : {-1, 50}) EXPECT_TRUE(says(error(nodes + 28, token), kTree));
  EXPECT_TRUE(says(error(nodes + 20, 0), kTree)) << "its children have slots";
  EXPECT_TRUE(says(error(nodes + 4 * 24 + 20, 0), "more or fewer slots than it says"));
  EXPECT_EQ(error(nodes + 20, 7), "") << "any number but 0 is yes";
}

TEST_F(SnapshotTest, OfNothingHasSlotsOfTheModel) {
  const Made first = Make();
  first.scorer->Save(File(), nullptr, "");
  const std::string good = Content(File());
  const auto load = [&](int64_t slot_bytes) {
    std::string bad = good;
    std::memcpy(&bad[32], &slot_bytes, sizeof slot_bytes);
    std::ofstream(File("bad"), std::ios::binary) << WithChecksum(bad);
    first.scorer->Load(File("bad"), "");
  };
  EXPECT_NO_THROW(load(SlotBytes()));
  EXPECT_THROW(load(SlotBytes() + 1), CacheFileError);
  EXPECT_THROW(load(-SlotBytes()), CacheFileError);
}

TEST_F(SnapshotTest, AWholeBlockOfSlotsBeforeATokenWithout) {
  Tokens text{1};
  while (text.size() < 257) text.push_back(static_cast<int32_t>(text.size() % 40));
  const Made first = Make();
  ExpectScores(*first.scorer, {text}, 256);
  EXPECT_EQ(StatsOf(*first.scorer).cached_tokens, 256);
  EXPECT_EQ(first.scorer->Save(File(), nullptr, ""), 256);
  const Made second = Make();
  EXPECT_EQ(second.scorer->Load(File(), ""), 256);
  ExpectScores(*second.scorer, {text}, 256);
  EXPECT_EQ(second.model->forwards, 0);
}

TEST_F(SnapshotTest, WhatIsKnownOfAnEndOfAWordStays) {
  const Made first = Make(int64_t{1} << 20, Mode::kTree, 5);
  first.scorer->Prime(LastOf(kContexts, 0, true), "");
  first.scorer->Save(File(), nullptr, "");
  first.scorer->Load(File(), "");
  const int asked = first.model->normalizers_asked;
  const PathScores scores = first.scorer->Score(LastOf(kContexts, 0, true), "");
  for (size_t i = 0; i < kContexts.size(); ++i) {
    EXPECT_NEAR(scores.word_end[i], HashModel::WordEnd(kContexts[i]), kTolerance);
  }
  EXPECT_EQ(first.model->normalizers_asked, asked);
}

TEST_F(SnapshotTest, AnOwnerThatIsUnknownOrLongIsShownShort) {
  const std::string long_format(60, 'x');
  const Made first = Make(int64_t{1} << 20, Mode::kTree, 0, long_format);
  first.scorer->Prime(LastOf(kContexts, 0), "");
  first.scorer->Save(File(), nullptr, "");
  const auto error = [&](const std::string& content) {
    std::ofstream(File("bad"), std::ios::binary) << WithChecksum(content);
    try {
      Make().scorer->Load(File("bad"), "");
    } catch (const CacheFileError& wrong) {
      return std::string(wrong.what());
    }
    return std::string();
  };
  std::string content = Content(File());
  EXPECT_NE(error(content).find("slots is \"" + std::string(39, 'x') + "..., here \"a token"),
            std::string::npos)
      << error(content);
  content[content.find("slot_bytes: ") + 10] = '=';  // no field any more
  EXPECT_NE(error(content).find("slot_bytes is unknown, here 100; slots is "), std::string::npos)
      << error(content);
}

// A model with a description, as a file has it.
class Described final : public HashLM {
 public:
  explicit Described(const std::string& json) : described_(HashLM::description()) {
    described_.json = json;
  }
  const ModelDescription& description() const override { return described_; }

 private:
  ModelDescription described_;
};

TEST_F(SnapshotTest, WhatAModelIsCountsAndWhereItIsFromDoesNot) {
  const auto scorer = [](const std::string& json) {
    return ScorerOf(std::make_unique<Described>(json), 1000);
  };
  const auto first = scorer(R"({"layers": 1, "source": "here", "torch": "2"})");
  first->Prime(LastOf(kContexts, 0), "");
  first->Save(File(), nullptr, "");
  EXPECT_EQ(scorer(R"({"layers": 1, "source": "there", "torch": "3"})")->Load(File(), ""), 5);
  try {
    scorer(R"({"layers": 2, "source": "here", "torch": "2"})")->Load(File(), "");
    ADD_FAILURE();
  } catch (const CacheFileError& error) {
    EXPECT_NE(std::string(error.what()).find("(layers is 1, here 2)"), std::string::npos)
        << error.what();
  }
}

TEST(NeededBytes, OfNoTokensAreNone) {
  EXPECT_EQ(NeededBytes(Paths({{}}, {0}), SlotBytes(), nullptr, kNoNode), 0);
  EXPECT_EQ(NeededBytes(Paths({{1, 2, 3}}, {1}), SlotBytes(), nullptr, kNoNode),
            2 * SlotBytes() + 3 * NodeBytes());
}

TEST(NeededBytes, OfALastTokenAreASlotOnlyWhereTheTreeHasOne) {
  TokenTree tree(100, 1, int64_t{1} << 40);
  const NodeId root = tree.NewRoot();
  NodeId node = root;
  for (const int32_t token : {1, 2, 3}) node = tree.FindOrAdd(node, token);
  EXPECT_EQ(NeededBytes(Paths({{1, 2, 3}}, {1}), SlotBytes(), &tree, root),
            2 * SlotBytes() + 3 * NodeBytes());
}

TEST(Hold, NothingIsHeldInOtherModes) {
  const auto tokens = std::make_shared<const Tokens>(Tokens{1, 2});
  EXPECT_EQ(HashScorer(1000, Mode::kUncached)->Hold(tokens, ""), nullptr);
  EXPECT_NE(HashScorer(1000)->Hold(tokens, ""), nullptr);
}

TEST(Known, NothingIsInOtherModes) {
  const auto scorer = HashScorer(1000, Mode::kUncached);
  ExpectScores(*scorer, {{1, 2, 3}}, 2);
  const PathScores known = scorer->Known(Paths({{1, 2, 3}}, {1}), "");
  for (const float log_prob : known.log_probs[0]) EXPECT_TRUE(std::isnan(log_prob));
}

TEST_F(SnapshotTest, AnotherModelIsRefusedByName) {
  const Made first = Make();
  first.scorer->Prime(LastOf(kContexts, 0), "");
  first.scorer->Save(File(), nullptr, "");
  const Made other = Make(int64_t{1} << 20, Mode::kTree, 0, "two tokens");
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
  first.scorer->Prime(LastOf(kContexts, 0), "");
  EXPECT_THROW(first.scorer->Save(File("no such folder/cache"), nullptr, ""), CacheFileError);
  std::filesystem::create_directories(File("folder/inside"));
  EXPECT_THROW(first.scorer->Save(File("folder"), nullptr, ""), CacheFileError);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);  // no left-overs
  EXPECT_EQ(first.scorer->Save(File(), nullptr, ""), 5);
  EXPECT_EQ(first.scorer->Save(File(), nullptr, ""), 5);
  EXPECT_EQ(Make().scorer->Load(File(), ""), 5);
}

// Two scorers that save to one path at once: whichever is last, its file is whole.
TEST_F(SnapshotTest, SavesToOnePathDoNotMix) {
  std::vector<std::thread> threads;
  for (int32_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      const Made made = Make();
      std::vector<Tokens> contexts;  // another number of tokens in each thread
      for (int32_t i = 0; i <= 10 * thread; ++i) contexts.push_back({1, i, thread});
      made.scorer->Prime(LastOf(contexts, 0), "");
      for (int save = 0; save < 20; ++save) {
        ASSERT_EQ(made.scorer->Save(File(), nullptr, ""), 3 + 20 * thread);
        ASSERT_GE(Make().scorer->Load(File(), ""), 3);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);  // no left-overs
}

std::string LoadError(const std::string& file) {
  try {
    Make().scorer->Load(file, "");
  } catch (const CacheFileError& error) {
    return error.what();
  }
  return "loaded";
}

TEST_F(SnapshotTest, WhatIsNoSnapshotIsSaidToBeNone) {
  EXPECT_EQ(LoadError(folder_.string()),
            folder_.string() + " is a folder; a cache snapshot is one file (save_cache writes it)");
  EXPECT_EQ(LoadError("/dev/null"),
            "/dev/null is not a file; a cache snapshot is one file (save_cache writes it)");
  EXPECT_EQ(LoadError(File("nothing")), "no such cache snapshot: " + File("nothing"));
  std::ofstream(File("text")) << std::string(100, 'x');
  EXPECT_EQ(LoadError(File("text")),
            File("text") + " is not a cache snapshot (save_cache writes one)");
}

TEST_F(SnapshotTest, AnotherFormatIsRefused) {
  const Made first = Make();
  first.scorer->Prime(LastOf(kContexts, 0), "");
  first.scorer->Save(File(), nullptr, "");
  std::string content = Content(File());
  content[8] = 1;
  std::ofstream(File(), std::ios::binary) << content;
  EXPECT_EQ(LoadError(File()), File() +
                                   " has format 1, this version of lmfusion reads format 2; "
                                   "save it again");
}

TEST_F(SnapshotTest, AModelThatFailsLeavesNothingHalf) {
  class NoWriting final : public HashLM {
   public:
    void WriteSlots(const std::vector<SlotId>&, const char*) override {
      throw std::runtime_error("the device is gone");
    }
  };
  const Made first = Make();
  first.scorer->Prime(LastOf(kContexts, 0), "");
  first.scorer->Save(File(), nullptr, "");
  const auto scorer = ScorerOf(std::make_unique<NoWriting>(), 100);
  EXPECT_THROW(scorer->Load(File(), ""), std::runtime_error);
  EXPECT_EQ(StatsOf(*scorer).cached_tokens, 0);
  ExpectScores(*scorer, {{1, 2, 3, 7}}, 2);
}

}  // namespace
}  // namespace lmfusion
