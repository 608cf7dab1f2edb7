#include "lmfusion/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "refused_tokenizer.h"
#include "text/tokenizers/cuts.h"
#include "text/tokenizers/normalizer.h"
#include "text/tokenizers/ordinary_ids.h"
#include "text/tokenizers/split_pattern.h"
#include "text/tokenizers/word_cache.h"
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

// As the package tokenizers reads them (0.23): [a, 2 spaces, a] whatever follows the first two.
TEST(JsonTokenizer, AnAddedTokenThatTookTheSpacesLeavesNoneForTheNext) {
  const auto tokenizer = TokenizerFromJson(R"({
      "added_tokens": [{"id": 2, "content": "  ", "lstrip": true, "rstrip": true}],
      "model": {"type": "BPE", "merges": [], "vocab": {"a": 0, " ": 1, "  ": 2}}})");
  for (const char* const text : {"a  a", "a   a", "a    a", "a     a"}) {
    EXPECT_EQ(tokenizer->Encode(text), (std::vector<int32_t>{0, 2, 0})) << text;
  }
}

// The package tokenizers makes the token of such letters even where it is told to read text as
// text.
TEST(JsonTokenizer, MergesMakeNoControlTokenOfLetters) {
  const std::string json = R"({
      "added_tokens": [{"id": 6, "content": "</s>", "special": true}],
      "model": {"type": "BPE", "merges": [["<", "/"], ["s", ">"], ["</", "s>"]],
                "vocab": {"<": 0, "/": 1, "s": 2, ">": 3, "</": 4, "s>": 5, "</s>": 6}}})";
  EXPECT_EQ(TokenizerFromJson(json)->Encode("</s>"), (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(TokenizerFromJson(json, SpecialTokens::kAllow)->Encode("</s>"),
            (std::vector<int32_t>{6}));
}

// A tokenizer.json with this vocabulary and these added tokens, each "id: content".
std::string WithTokens(const std::string& vocabulary,
                       const std::vector<std::pair<std::string, std::string>>& added) {
  std::string tokens;
  for (const auto& [id, content] : added) {
    tokens += std::string(tokens.empty() ? "" : ", ") + R"({"id": )" + id + R"(, "content": ")" +
              content + R"("})";
  }
  return R"({"added_tokens": [)" + tokens + R"(], "model": {"type": "BPE", "vocab": )" +
         vocabulary + R"(, "merges": []}})";
}

TEST(JsonTokenizer, IdsAreThoseOfThePackageTokenizers) {
  const std::string ab = R"({"a": 0, "b": 1})";
  EXPECT_EQ(Refusal(WithTokens(ab, {{"2", "X"}, {"3", "Y"}, {"1", "b"}})), "");
  EXPECT_EQ(Refusal(WithTokens(R"({"a": 0, "b": 5})", {{"2", "X"}, {"3", "Y"}})), "");
  EXPECT_EQ(Refusal(WithTokens(R"({"a": 0, "b": 5})", {{"5", "b"}, {"2", "X"}})), "");
  const std::pair<std::string, std::string> wrong[] = {
      {WithTokens(ab, {{"20000000", "X"}}), "\"X\" has the id 20000000"},
      {WithTokens(ab, {{"-1", "X"}}), "\"X\" has the id -1"},
      {WithTokens(ab, {{"2.0", "X"}}), "\"X\" has the id 2.0"},
      {WithTokens(ab, {{"true", "X"}}), "\"X\" has the id true"},
      {WithTokens(ab, {{"7", "X"}}), "\"X\" has the id 7, but .* reads it as 2"},
      {WithTokens(ab, {{"1", "X"}}), "\"X\" has the id 1, but .* reads it as 2"},
      {WithTokens(ab, {{"2", "a"}}), "\"a\" has the id 2, but .* reads it as 0"},
      {WithTokens(ab, {{"2", "X"}, {"3", "X"}}), "\"X\" is there twice"},
      {WithTokens(ab, {{"2", "X"}, {"2", "Y"}}), "\"Y\" has the id 2, but .* reads it as 3"},
      {WithTokens(ab, {{"2", ""}}), "an added token is empty"},
      {WithTokens(R"({"a": 0, "b": 2})", {{"2", "X"}}), "\"X\" has the id 2 of the piece \"b\""},
      {WithTokens(R"({"a": 0, "b": 5})", {{"5", "b"}, {"6", "X"}}),
       "\"X\" has the id 6, but .* as 2"},
      {WithTokens(R"({"a": 0, "b": 0})", {}), "have the same id 0"},
      {WithTokens(R"({"a": 0, "b": 16777216})", {}), "\"b\" has the id 16777216"},
      {WithTokens(R"({"a": 18446744073709551615})", {}), "\"a\" has the id 18446744073709551615"}};
  for (const auto& [json, message] : wrong) {
    EXPECT_THAT(Refusal(json), testing::ContainsRegex(message)) << json;
  }
}

TEST(JsonTokenizer, AddedTokensAreNoOrdinaryIds) {
  const auto ordinary = [](const std::string& json) {
    return dynamic_cast<const OrdinaryIds&>(*TokenizerFromJson(json)).OrdinarySize();
  };
  EXPECT_EQ(ordinary(WithTokens(R"({"a": 0, "b": 1})", {{"2", "X"}, {"3", "Y"}})), 2);
  EXPECT_EQ(ordinary(WithTokens(R"({"a": 0, "b": 5})", {{"5", "b"}, {"2", "X"}})), 1);
}

TEST(JsonTokenizer, ALargeIdTakesNoMemory) {
  const size_t before = mallinfo2().uordblks;
  const auto tokenizer = TokenizerFromJson(WithTokens(R"({"a": 0, "b": 16777215})", {}));
  EXPECT_LT(mallinfo2().uordblks, before + (8 << 20));
  EXPECT_EQ(tokenizer->VocabularySize(), 16'777'216);
  EXPECT_EQ(tokenizer->Piece(16'777'215), "b");
  EXPECT_EQ(tokenizer->Piece(5), "");
  EXPECT_FALSE(tokenizer->BeginsWord(5));
  EXPECT_EQ(tokenizer->Encode("ab"), (Ids{0, 16'777'215}));
}

TEST(JsonTokenizer, NamesThePartThatIsWrong) {
  const auto with = [](const std::string& part) {
    return R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, )" + part + "}";
  };
  const auto repeated = [](const std::string& text, int times) {
    std::string all;
    for (int i = 0; i < times; ++i) all += text;
    return all;
  };
  const std::string step = R"({"type": "NFC"})";
  const std::string digits = R"({"type": "Digits"})";
  const std::pair<std::string, std::string> wrong[] = {
      {R"({"model": {"type": "BPE", "vocab": [1], "merges": []}})", "\"model\""},
      {R"({"model": {"type": "BPE", "vocab": {}, "merges": [1]}})", "\"model\""},
      {R"({"model": []})", "model"},
      {with(R"("added_tokens": [1])"), "\"added_tokens\""},
      {with(R"("normalizer": {"type": "Prepend", "prepend": 1})"), "\"normalizer\""},
      {with(R"("normalizer": {"type": "Sequence"})"), "\"normalizer\""},
      {with(R"("pre_tokenizer": {"type": "Split", "pattern": 1})"), "\"pre_tokenizer\""},
      {with(R"("pre_tokenizer": {"type": "Metaspace", "replacement": "ab"})"), "one character"},
      {with(R"("normalizer": {"type": "Sequence", "normalizers": [)" + repeated(step + ",", 99) +
            step + "]}"),
       "so many steps"},
      {with(R"("pre_tokenizer": {"type": "Sequence", "pretokenizers": [)" +
            repeated(digits + ",", 99) + digits + "]}"),
       "so many steps"},
      {repeated("[", 100'000), "nested too deeply"},
      {with("\"normalizer\": " + repeated(R"({"type": "Sequence", "normalizers": [)", 10'000)),
       "nested too deeply"},
      {R"({"added_tokens": 6e6666666666})", "a number in it is out of range"},
      {"{\"\xff\": 1}", "not JSON at byte"}};
  for (const auto& [json, message] : wrong) {
    EXPECT_THAT(Refusal(json), testing::HasSubstr(message)) << json.substr(0, 200);
  }
}

TEST(JsonTokenizer, HostilePatternsAndNormalizersAreErrors) {
  const auto with = [](const std::string& part) {
    return R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, )" + part + "}";
  };
  const auto nested = TokenizerFromJson(with(
      R"("pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?:a+)+[bd]"},
                           "behavior": "Isolated"})"));
  EXPECT_THROW(nested->Encode(std::string(40, 'a') + "c"), Error);
  EXPECT_EQ(nested->Encode("a"), Ids{0});

  std::string doubles;
  for (int i = 0; i < 60; ++i) {
    doubles += std::string(i == 0 ? "" : ",") +
               R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})";
  }
  const auto doubling = TokenizerFromJson(
      with(R"("normalizer": {"type": "Sequence", "normalizers": [)" + doubles + "]}"));
  EXPECT_THROW(doubling->Encode("a"), Error);
  EXPECT_EQ(doubling->Encode("b"), Ids{});

  EXPECT_THAT(Refusal(with(R"("pre_tokenizer": {"type": "Split", "behavior": "Isolated",
                              "pattern": {"String": ")" +
                           std::string(100'000, 'a') + "\"}}")),
              testing::HasSubstr("a pattern is longer"));
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

TEST(WordCache, KeepsWhatFits) {
  const WordCache cache;
  Ids ids;
  EXPECT_FALSE(cache.Find("word", &ids));
  cache.Put("word", {9, 1, 2}, 1);
  ASSERT_TRUE(cache.Find("word", &ids));
  EXPECT_EQ(ids, (Ids{1, 2}));
  cache.Put(std::string(WordCache::kMaxBytes + 1, 'a'), {1}, 0);
  EXPECT_FALSE(cache.Find(std::string(WordCache::kMaxBytes + 1, 'a'), &ids));
  cache.Put("", {}, 0);
  EXPECT_TRUE(cache.Find("", &ids));
}

TEST(WordCache, ThreadsAgree) {
  const WordCache cache;
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
  EXPECT_EQ(CharacterBefore("\x80\x80\x80\x80\x80", 5).value, kNoCharacter);
  EXPECT_EQ(Utf8Length(text[6]), 4u);
}

}  // namespace
}  // namespace lmfusion
