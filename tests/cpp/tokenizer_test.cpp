#include "lmfusion/tokenizer.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "lmfusion/errors.h"
#include "text/tokenizers/cuts.h"
#include "text/tokenizers/normalizer.h"
#include "text/tokenizers/piece_cache.h"
#include "text/tokenizers/split_pattern.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

using Ids = std::vector<int32_t>;

// A byte-level BPE of the letters a and b and the space: "a" 0, "b" 1, " " 2, "ab" 3, " a" 4,
// " ab" 5, and the control token "<|end|>" 6.
std::shared_ptr<const Tokenizer> Small() {
  return TokenizerFromJson(R"({
    "added_tokens": [{"id": 6, "content": "<|end|>", "special": true, "normalized": false,
                      "single_word": false, "lstrip": false, "rstrip": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġa": 4, "Ġab": 5},
              "merges": ["a b", "Ġ a", "Ġ ab"]}})");
}

TEST(JsonTokenizer, MergesByRank) {
  const auto tokenizer = Small();
  EXPECT_EQ(tokenizer->Encode("ab ab b"), (Ids{3, 5, 2, 1}));
  EXPECT_EQ(tokenizer->Encode(""), Ids{});
  EXPECT_EQ(tokenizer->VocabularySize(), 7);
  EXPECT_EQ(tokenizer->Piece(6), "<|end|>");
  EXPECT_EQ(tokenizer->PieceId("Ġab"), 5);
  EXPECT_EQ(tokenizer->PieceId(" ab"), -1);
  EXPECT_TRUE(tokenizer->BeginsWord(5));
  EXPECT_FALSE(tokenizer->BeginsWord(3));
  EXPECT_THROW(tokenizer->Piece(7), std::invalid_argument);
  EXPECT_THROW(tokenizer->BeginsWord(-1), std::invalid_argument);
}

TEST(JsonTokenizer, CutsAtTheLastSpaceBetweenLetters) {
  const auto tokenizer = Small();
  const std::string text = "ab a  b ab ";
  EXPECT_EQ(tokenizer->LastCut(text, text.size()), 7u);
  EXPECT_EQ(tokenizer->LastCut(text, 100), 7u);
  EXPECT_EQ(tokenizer->LastCut(text, 6), 2u);
  EXPECT_EQ(tokenizer->LastCut(text, 1), 0u);
  EXPECT_EQ(tokenizer->LastCut("", 0), 0u);
  EXPECT_EQ(tokenizer->LastCut("\xff\xff \xff", 3), 0u);
  EXPECT_EQ(tokenizer->EncodeAfterCut(" ab"), Ids{5});
}

TEST(JsonTokenizer, WordsOfAMegabyte) {
  const auto tokenizer = Small();
  constexpr size_t kPairs = 500'000;
  std::string word;
  for (size_t i = 0; i < kPairs; ++i) word += "ab";
  EXPECT_EQ(tokenizer->Encode(word), Ids(kPairs, 3));
}

TEST(JsonTokenizer, SaysWhereTextIsWrong) {
  const auto tokenizer = Small();
  for (const std::string bad :
       {"a\xff", "a\xed\xa0\x80", "a\xc1\xbf", "a\xe2\x82", "a\xf5\x80\x80\x80"}) {
    try {
      tokenizer->Encode(bad);
      ADD_FAILURE() << "no error";
    } catch (const TextError& error) {
      EXPECT_NE(std::string(error.what()).find("byte 1 of"), std::string::npos) << error.what();
    }
    EXPECT_THROW(tokenizer->EncodeAfterCut(bad), TextError);
  }
}

TEST(JsonTokenizer, RefusesWrongMerges) {
  EXPECT_THROW(TokenizerFromJson(R"({"model": {"type": "BPE", "vocab": {"a": 0},
                                               "merges": [["a", "b"]]}})"),
               TokenizerError);
  EXPECT_THROW(TokenizerFromJson(R"({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}})"),
               TokenizerError);
  EXPECT_THROW(TokenizerFromJson("[]"), TokenizerError);
}

TEST(FunctionTokenizer, ChecksWhatTheFunctionGives) {
  const auto lengths = [](const std::string& text) {
    return Ids{static_cast<int32_t>(text.size())};
  };
  const auto tokenizer = TokenizerFromFunction(lengths, 5);
  EXPECT_EQ(tokenizer->Encode("abc"), Ids{3});
  EXPECT_EQ(tokenizer->EncodeAfterCut(" a"), Ids{2});
  EXPECT_EQ(tokenizer->LastCut("a b", 2), 0u);
  EXPECT_EQ(tokenizer->PieceId("a"), -1);
  EXPECT_EQ(tokenizer->Piece(4), "");
  EXPECT_FALSE(tokenizer->BeginsWord(0));
  EXPECT_THROW(tokenizer->Encode("abcde"), std::invalid_argument);
  EXPECT_THROW(tokenizer->Encode("\xff"), TextError);
  EXPECT_THROW(tokenizer->BeginsWord(5), std::invalid_argument);
  EXPECT_THROW(TokenizerFromFunction(nullptr, 5), std::invalid_argument);
  EXPECT_THROW(TokenizerFromFunction(lengths, 0), std::invalid_argument);
}

TEST(Nfc, OrdersLongRunsOfMarks) {
  constexpr size_t kPairs = 200'000;
  std::string mixed = "q", sorted = "q";
  for (size_t i = 0; i < kPairs; ++i) mixed += "\u0301\u0323";
  for (size_t i = 0; i < kPairs; ++i) sorted += "\u0323";
  for (size_t i = 0; i < kPairs; ++i) sorted += "\u0301";
  EXPECT_TRUE(Nfc(mixed) == sorted);
  EXPECT_EQ(Nfc("e\u0301"), "é");
  EXPECT_EQ(Nfc("\u1100\u1161\u11a8"), "각");
}

TEST(PieceCache, KeepsWhatFits) {
  const PieceCache cache;
  Ids ids;
  EXPECT_FALSE(cache.Find("word", &ids));
  cache.Put("word", {9, 1, 2}, 1);
  ASSERT_TRUE(cache.Find("word", &ids));
  EXPECT_EQ(ids, (Ids{1, 2}));
  cache.Put(std::string(PieceCache::kMaxBytes + 1, 'a'), {1}, 0);
  EXPECT_FALSE(cache.Find(std::string(PieceCache::kMaxBytes + 1, 'a'), &ids));
  cache.Put("", {}, 0);
  EXPECT_TRUE(cache.Find("", &ids));
}

TEST(PieceCache, ThreadsAgree) {
  const PieceCache cache;
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t thread = 0; thread < wrong.size(); ++thread) {
    threads.emplace_back([&cache, &wrong, thread] {
      for (int32_t i = 0; i < 100'000; ++i) {
        const std::string piece = std::to_string(i % 50'000);
        Ids ids;
        if (cache.Find(piece, &ids) && ids != Ids{i % 50'000}) ++wrong[thread];
        cache.Put(piece, {i % 50'000}, 0);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, (std::vector<int>{0, 0, 0, 0}));
}

TEST(SplitPattern, KnowsWhichPatternsCanBeCut) {
  EXPECT_TRUE(SplitPattern(R"( ?\p{L}+| ?[^\s\p{L}]+|\s+(?!\S)|\s+)").SplitsAtCuts());
  EXPECT_TRUE(
      SplitPattern(R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|[^\s\p{L}\p{N}]+|\s+)").SplitsAtCuts());
  EXPECT_TRUE(SplitPattern(R"(\d)").RespectsCuts());
  EXPECT_FALSE(SplitPattern(R"(\d)").SplitsAtCuts());
  for (const char* pattern : {R"(\p{L}+ ?|.)", R"(\p{L}+(?=\s)|.)", R"((?<=\s)a|.)", R"(^a|.)",
                              R"((?:a )+|.)", R"([a ]+|.)", R"(a(?!\S)|.)"}) {
    EXPECT_FALSE(SplitPattern(pattern).RespectsCuts()) << pattern;
  }
}

TEST(Utf8, CharacterBeforeIsTheOneThatEndsThere) {
  const std::string text = "aé日😀";
  EXPECT_EQ(CharacterBefore(text, 1).value, U'a');
  EXPECT_EQ(CharacterBefore(text, 3).value, U'é');
  EXPECT_EQ(CharacterBefore(text, 6).value, U'日');
  EXPECT_EQ(CharacterBefore(text, 10).value, U'😀');
  EXPECT_EQ(CharacterBefore(text, 0).value, kNoCharacter);
  EXPECT_EQ(CharacterBefore(text, 2).value, kNoCharacter);
}

}  // namespace
}  // namespace lmfusion
