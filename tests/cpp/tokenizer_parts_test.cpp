// The parts of a tokenizer.json one by one. What texts become is what the package tokenizers 0.23
// gives for the same parts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "lmfusion/errors.h"
#include "lmfusion/tokenizer.h"
#include "refused_tokenizer.h"
#include "text/tokenizers/byte_level.h"
#include "text/tokenizers/cuts.h"
#include "text/tokenizers/pre_tokenizer.h"
#include "text/tokenizers/space_mark.h"
#include "text/tokenizers/tokenizer_json.h"

namespace lmfusion {
namespace {

using Ids = std::vector<int32_t>;
using Words = std::vector<std::string>;

// A tokenizer.json of one letter with these parts, each `"name": value`.
std::string With(const std::string& parts) {
  return R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, )" + parts + "}";
}

Words WordsOf(const std::string& pre_tokenizer, std::string_view text, bool first = true) {
  const PreTokenizer read(
      ReadTokenizerJson(With("\"pre_tokenizer\": " + pre_tokenizer)).pre_tokenizer);
  PreTokenizer::Words words;
  read.Apply(text, first, &words);
  return Words(words.views.begin(), words.views.end());
}

std::string AtCommas(const std::string& behavior, bool invert) {
  return R"({"type": "Split", "pattern": {"String": ","}, "behavior": ")" + behavior +
         R"(", "invert": )" + (invert ? "true}" : "false}");
}

std::string Metaspace(const std::string& more) { return R"({"type": "Metaspace")" + more + "}"; }

std::string Sequence(const std::string& first, const std::string& second) {
  return R"({"type": "Sequence", "pretokenizers": [)" + first + ", " + second + "]}";
}

TEST(PreTokenizer, EveryBehaviourOfASplit) {
  const auto split = [](const std::string& behavior, bool invert) {
    return WordsOf(AtCommas(behavior, invert), ",a,,b,");
  };
  EXPECT_EQ(split("Isolated", false), (Words{",", "a", ",", ",", "b", ","}));
  EXPECT_EQ(split("Isolated", true), (Words{",", "a", ",", ",", "b", ","}));
  EXPECT_EQ(split("Removed", false), (Words{"a", "b"}));
  EXPECT_EQ(split("Removed", true), (Words{",", ",", ",", ","}));
  EXPECT_EQ(split("MergedWithPrevious", false), (Words{",", "a,", ",", "b,"}));
  EXPECT_EQ(split("MergedWithPrevious", true), (Words{",a", ",", ",b", ","}));
  EXPECT_EQ(split("MergedWithNext", false), (Words{",a", ",", ",b", ","}));
  EXPECT_EQ(split("MergedWithNext", true), (Words{",", "a,", ",", "b,"}));
  EXPECT_EQ(split("Contiguous", false), (Words{",", "a", ",,", "b", ","}));
  EXPECT_EQ(split("Contiguous", true), (Words{",", "a", ",,", "b", ","}));
  EXPECT_THAT(Refusal(With("\"pre_tokenizer\": " + AtCommas("Joined", false))),
              testing::HasSubstr("the behavior \"Joined\" of the pre-tokenizer Split"));
}

TEST(PreTokenizer, DigitsAreThoseOfUnicode16) {
  const auto digits = [](const char* individual, std::string_view text) {
    return WordsOf(R"({"type": "Digits", "individual_digits": )" + std::string(individual) + "}",
                   text);
  };
  EXPECT_EQ(digits("false", "a12b٣½3"), (Words{"a", "12", "b", "٣½3"}));
  EXPECT_EQ(digits("true", "a12b٣½3"), (Words{"a", "1", "2", "b", "٣", "½", "3"}));
  EXPECT_EQ(digits("true", "a:b~"), Words{"a:b~"});
  // Garay digits are new in Unicode 16, U+105C0 is a letter as new; U+0378 is not assigned.
  EXPECT_EQ(digits("true", "\U00010d40\U00010d49\U000105c0\u0378é€…"),
            (Words{"\U00010d40", "\U00010d49", "\U000105c0\u0378é€…"}));
  EXPECT_EQ(digits("false", "a !1"), (Words{"a !", "1"}));
  EXPECT_EQ(digits("false", ""), Words{});
}

TEST(PreTokenizer, MetaspaceWritesMarks) {
  const std::string never = Metaspace(R"(, "prepend_scheme": "never")");
  EXPECT_EQ(WordsOf(Metaspace(""), "a b  c"), (Words{"▁a", "▁b", "▁", "▁c"}));
  EXPECT_EQ(WordsOf(Metaspace(""), "▁a"), Words{"▁a"});
  EXPECT_EQ(WordsOf(never, "a b"), (Words{"a", "▁b"}));
  EXPECT_EQ(WordsOf(Metaspace(R"(, "add_prefix_space": false)"), "a b"), (Words{"a", "▁b"}));
  const std::string first = Metaspace(R"(, "prepend_scheme": "first", "split": false)");
  EXPECT_EQ(WordsOf(first, "a b"), Words{"▁a▁b"});
  EXPECT_EQ(WordsOf(first, "a b", false), Words{"a▁b"});
  EXPECT_EQ(WordsOf(Metaspace(R"(, "replacement": "_", "split": false)"), "a b"), Words{"_a_b"});
  EXPECT_EQ(
      WordsOf(Sequence(AtCommas("Isolated", false), Metaspace(R"(, "prepend_scheme": "first")")),
              "a,b c"),
      (Words{"▁a", ",", "b", "▁c"}));
  const auto refusal = [](const std::string& more) {
    return Refusal(With("\"pre_tokenizer\": " + Metaspace(more)));
  };
  EXPECT_THAT(refusal(R"(, "replacement": "")"), testing::HasSubstr("not one character"));
  EXPECT_THAT(refusal(R"(, "replacement": "▁▁")"), testing::HasSubstr("not one character"));
  EXPECT_THAT(refusal(R"(, "prepend_scheme": "last")"),
              testing::HasSubstr("the prepend_scheme \"last\""));
}

TEST(PreTokenizer, ByteLevelIsLast) {
  const std::string plain = R"({"type": "ByteLevel", "use_regex": false})";
  EXPECT_EQ(WordsOf(plain, "a b"), Words{" a b"});
  EXPECT_EQ(WordsOf(plain, " a b"), Words{" a b"});
  EXPECT_EQ(WordsOf(R"({"type": "ByteLevel"})", "ab c1"), (Words{" ab", " c", "1"}));
  EXPECT_EQ(WordsOf(R"({"type": "ByteLevel", "add_prefix_space": false})", "ab c1"),
            (Words{"ab", " c", "1"}));
  EXPECT_EQ(WordsOf(Sequence(AtCommas("Removed", false),
                             R"({"type": "Digits", "individual_digits": true})"),
                    "1,2b"),
            (Words{"1", "2", "b"}));
  EXPECT_EQ(WordsOf(Sequence(AtCommas("Removed", false), plain), ",,"), Words{});
  EXPECT_EQ(WordsOf("null", "a b"), Words{"a b"});
  EXPECT_THAT(Refusal(With("\"pre_tokenizer\": " + Sequence(plain, Metaspace("")))),
              testing::HasSubstr("the pre-tokenizer \"Metaspace\" after ByteLevel"));
  EXPECT_THAT(Refusal(With(R"("pre_tokenizer": {"type": "Whitespace"})")),
              testing::HasSubstr("the pre-tokenizer \"Whitespace\" (ByteLevel"));
}

std::string Normalized(const std::string& part, std::string_view text) {
  return ReadTokenizerJson(With("\"normalizer\": " + part)).normalizer.Apply(text);
}

TEST(Normalizer, EveryStep) {
  EXPECT_EQ(Normalized(R"({"type": "NFC"})", "e\u0301"), "é");
  EXPECT_EQ(Normalized(R"({"type": "NFC"})", "abc"), "abc");
  const auto composing = TokenizerFromJson(R"({"normalizer": {"type": "NFC"}, "model": {
      "merges": [], "vocab": {"é": 0, "a": 1}}})");
  EXPECT_EQ(composing->Encode("ae\u0301"), (Ids{1, 0}));
  EXPECT_EQ(composing->Encode("a"), Ids{1});
  const auto prepending = TokenizerFromJson(R"({"normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
      "model": {"merges": [], "vocab": {"▁": 0, "a": 1}}})");
  EXPECT_EQ(prepending->Encode("a a"), (Ids{0, 1, 0, 1}));
  EXPECT_EQ(prepending->EncodeAfterCut(" a"), (Ids{0, 1}));
  EXPECT_EQ(Normalized(R"({"type": "Prepend", "prepend": "▁"})", "ab"), "▁ab");
  EXPECT_EQ(Normalized(R"({"type": "Prepend", "prepend": "▁"})", ""), "");
  const auto replaced = [](const std::string& pattern, const std::string& to,
                           std::string_view text) {
    return Normalized(
        R"({"type": "Replace", "pattern": {)" + pattern + R"(}, "content": ")" + to + "\"}", text);
  };
  EXPECT_EQ(replaced(R"("String": "ab")", "x", "abcabab"), "xcxx");
  EXPECT_EQ(replaced(R"("Regex": " {2,}")", "▁", "a  b c   "), "a▁b c▁");
  EXPECT_EQ(replaced(R"("Regex": "[0-9]+?")", "", "a12b"), "ab");
  EXPECT_EQ(replaced(R"("Regex": "x")", "y", "ab"), "ab");
  EXPECT_THAT(Refusal(With(R"("normalizer": {"type": "Replace", "pattern": {"String": ""},
                              "content": "a"})")),
              testing::HasSubstr("Replace of empty text"));
  EXPECT_THAT(Refusal(With(R"("normalizer": {"type": "Lowercase"})")),
              testing::HasSubstr("the normalizer \"Lowercase\""));
}

TEST(Model, WhatIsNotImplementedIsNamed) {
  const auto refusal = [](const std::string& more) {
    return Refusal(R"({"model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"])" + more +
                   "}}");
  };
  EXPECT_EQ(refusal(""), "");
  EXPECT_EQ(refusal(R"(, "dropout": null, "unk_token": "a", "end_of_word_suffix": "")"), "");
  EXPECT_THAT(refusal(R"(, "dropout": 0.5)"), testing::HasSubstr("the model's dropout"));
  EXPECT_THAT(refusal(R"(, "end_of_word_suffix": "</w>")"),
              testing::HasSubstr("the model's end_of_word_suffix"));
  EXPECT_THAT(refusal(R"(, "type": "WordPiece")"), testing::HasSubstr("the model \"WordPiece\""));
  EXPECT_THAT(refusal(R"(, "unk_token": "<unk>")"),
              testing::HasSubstr("the unknown token \"<unk>\" is not in the vocabulary"));
  EXPECT_THAT(Refusal("{}"), testing::HasSubstr("it has no part \"model\""));
  const auto of_merge = [](const std::string& merge) {
    return Refusal(R"({"model": {"vocab": {"a": 0, "b": 1}, "merges": [)" + merge + "]}}");
  };
  EXPECT_THAT(of_merge("\"ab\""), testing::HasSubstr("the merge \"ab\" is not a pair"));
  EXPECT_THAT(of_merge("\"a b c\""), testing::HasSubstr("the merge \"a b c\" is not a pair"));
  EXPECT_THAT(of_merge("\"" + std::string(80, 'a') + "\""),
              testing::HasSubstr("the merge \"" + std::string(59, 'a') + "... is not a pair"));
  EXPECT_THAT(of_merge(R"(["a", "b", "c"])"),
              testing::HasSubstr("the part \"model\" cannot be read"));
  for (const char* merge : {"\"a x\"", "\"x a\"", "\"a b\""}) {
    EXPECT_THAT(of_merge(merge), testing::HasSubstr("that is not in the vocabulary")) << merge;
  }
}

TEST(Model, MergesThatOthersOvertook) {
  const auto encode = [](const std::string& merges, const char* text) {
    return TokenizerFromJson(R"({"model": {"vocab": {"a": 0, "b": 1, "ab": 2, "ba": 3, "c": 4,
        "bc": 5, "abc": 6}, "merges": [)" +
                             merges + "]}}")
        ->Encode(text);
  };
  EXPECT_EQ(encode(R"("b a", "a b")", "abab"), (Ids{0, 3, 1}));
  EXPECT_EQ(encode(R"("a b", "b a")", "abab"), (Ids{2, 2}));
  EXPECT_EQ(encode(R"("b c", "a bc", "a b")", "abc"), Ids{6});
  EXPECT_EQ(encode("", "abc"), (Ids{0, 1, 4}));
  EXPECT_EQ(TokenizerFromJson(R"({"model": {"vocab": {}, "merges": []}})")->VocabularySize(), 0);
}

TEST(Model, UnknownCharacters) {
  const auto encode = [](const std::string& vocabulary, const std::string& more, const char* text) {
    return TokenizerFromJson(R"({"model": {"type": "BPE", "merges": [], "vocab": )" + vocabulary +
                             more + "}}")
        ->Encode(text);
  };
  const std::string unknown = R"({"a": 0, "<unk>": 1})";
  EXPECT_EQ(encode(unknown, R"(, "unk_token": "<unk>")", "zzaz"), (Ids{1, 1, 0, 1}));
  EXPECT_EQ(encode(unknown, R"(, "unk_token": "<unk>", "fuse_unk": true)", "zzaz"), (Ids{1, 0, 1}));
  EXPECT_EQ(encode(unknown, "", "zzaz"), Ids{0});
  const std::string bytes = R"({"a": 0, "b": 1, "<0xC3>": 2, "<0xBC>": 3, "<unk>": 4, " ": 5})";
  const std::string fallback = R"(, "unk_token": "<unk>", "byte_fallback": true)";
  // "é" lacks one of its two bytes.
  EXPECT_EQ(encode(bytes, fallback, "aéüb üü"), (Ids{0, 2, 3, 4, 1, 5, 2, 3, 2, 3}));
  EXPECT_EQ(encode(bytes, fallback, "aéüb öéü"), (Ids{0, 2, 3, 4, 1, 5, 4, 2, 3, 4}));
}

TEST(Model, WholeWordsComeBeforeMerges) {
  const auto encode = [](const char* ignore) {
    return TokenizerFromJson(
               R"({"pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                                     "behavior": "Isolated"},
                   "model": {"merges": [["b", "c"]], "ignore_merges": )" +
               std::string(ignore) +
               R"(, "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, " ": 5, "bc": 6}}})")
        ->Encode("abc ab cb");
  };
  EXPECT_EQ(encode("false"), (Ids{0, 6, 5, 0, 1, 5, 2, 1}));
  EXPECT_EQ(encode("true"), (Ids{4, 5, 3, 5, 2, 1}));
}

// The ids of a text under these added tokens, each the fields of one.
std::shared_ptr<const Tokenizer> WithAdded(const std::string& tokens, const std::string& more = "",
                                           SpecialTokens special = SpecialTokens::kText) {
  return TokenizerFromJson(R"({"added_tokens": [)" + tokens + R"(], )" + more +
                               R"("model": {"type": "BPE", "merges": [], "vocab": {"a": 0, "b": 1,
            " ": 2, "<": 3, ">": 4, "x": 5, "y": 6, "é": 7, "▁": 8}}})",
                           special);
}

TEST(AddedTokens, TheLongestIsTaken) {
  const auto tokenizer = WithAdded(R"({"id": 5, "content": "x", "normalized": false},
      {"id": 9, "content": "<x>", "normalized": false},
      {"id": 10, "content": "<xy>", "normalized": false})");
  EXPECT_EQ(tokenizer->Encode("a<x><xy>x<xa"), (Ids{0, 9, 10, 5, 3, 5, 0}));
  EXPECT_EQ(tokenizer->Encode("a<x"), (Ids{0, 3, 5}));
  EXPECT_EQ(tokenizer->PieceId("<xy>"), 10);
  EXPECT_EQ(tokenizer->PieceId("y"), 6);
}

TEST(AddedTokens, SingleWordsAndStrips) {
  const auto one = [](const std::string& more) {
    return WithAdded(R"({"id": 9, "content": "<x>", "normalized": false, )" + more + "}");
  };
  EXPECT_EQ(one(R"("single_word": true)")->Encode("a<x> <x>a <x> <x>é <x>"),
            (Ids{0, 3, 5, 4, 2, 3, 5, 4, 0, 2, 9, 2, 3, 5, 4, 7, 2, 9}));
  EXPECT_EQ(one(R"("single_word": true)")->Encode("<x> a"), (Ids{9, 2, 0}));
  EXPECT_EQ(one(R"("lstrip": true, "rstrip": true)")->Encode("a  <x> <x>  b"), (Ids{0, 9, 9, 1}));
  EXPECT_EQ(one(R"("lstrip": true)")->Encode("<x>a <x>"), (Ids{9, 0, 9}));
  EXPECT_EQ(one(R"("rstrip": true)")->Encode("a<x>  b <x>"), (Ids{0, 9, 1, 2, 9}));
}

TEST(AddedTokens, NormalizedOnesAreFoundInNormalizedText) {
  const auto tokenizer = WithAdded(R"({"id": 9, "content": "a b", "normalized": true})",
                                   R"("normalizer": {"type": "Replace",
                                      "pattern": {"String": " "}, "content": "▁"}, )");
  EXPECT_EQ(tokenizer->Encode("xa by a b"), (Ids{5, 9, 6, 8, 9}));
  EXPECT_EQ(WithAdded(R"({"id": 9, "content": "ab", "normalized": true},
                         {"id": 10, "content": "<x>", "normalized": false})")
                ->Encode("xab<x>abb"),
            (Ids{5, 9, 10, 9, 1}));
}

TEST(AddedTokens, ThoseThatNormalizationMakesEmptyOrEqual) {
  // The first of two that become the same is found; what becomes empty is found nowhere.
  const auto tokenizer =
      WithAdded(R"({"id": 9, "content": "x1", "normalized": true},
                   {"id": 10, "content": "x2", "normalized": true},
                   {"id": 11, "content": "12", "normalized": true})",
                R"("normalizer": {"type": "Replace", "pattern": {"Regex": "[0-9]"},
                                  "content": ""}, )");
  EXPECT_EQ(tokenizer->Encode("ax2"), (Ids{0, 9}));
  EXPECT_EQ(tokenizer->Encode("a12b"), (Ids{0, 1}));
}

TEST(AddedTokens, AfterACut) {
  const auto tokenizer = WithAdded(R"({"id": 9, "content": "<x>", "normalized": false})",
                                   R"("pre_tokenizer": {"type": "Metaspace",
                                      "prepend_scheme": "first"}, )");
  EXPECT_EQ(tokenizer->Encode("b a<x>b"), (Ids{8, 1, 8, 0, 9, 1}));
  EXPECT_EQ(tokenizer->EncodeAfterCut(" a<x>b"), (Ids{8, 0, 9, 1}));
}

TEST(AddedTokens, ControlTokensAreTextUnlessAllowed) {
  const std::string control = R"({"id": 9, "content": "<x>", "special": true})";
  EXPECT_EQ(WithAdded(control)->Encode("a<x>"), (Ids{0, 3, 5, 4}));
  EXPECT_EQ(WithAdded(control, "", SpecialTokens::kAllow)->Encode("a<x>"), (Ids{0, 9}));
  // One of one character is that character; one in the vocabulary is not given by its whole word.
  EXPECT_EQ(WithAdded(R"({"id": 5, "content": "x", "special": true})")->Encode("x"), Ids{5});
  const auto whole =
      TokenizerFromJson(R"({"added_tokens": [{"id": 2, "content": "ab", "special": true}],
      "model": {"merges": ["a b"], "ignore_merges": true, "vocab": {"a": 0, "b": 1, "ab": 2}}})");
  EXPECT_EQ(whole->Encode("ab"), (Ids{0, 1}));
}

// Whether a tokenizer whose text is divided at space marks cuts "a b" at its space.
bool CutsWith(const std::string& added) {
  return WithAdded(added, R"("pre_tokenizer": {"type": "Metaspace"}, )")->LastCut("a b", 3) == 1;
}

TEST(AddedTokens, ThoseThatReachAcrossASpaceAllowNoCuts) {
  const auto token = [](const std::string& content, const std::string& more = "") {
    return R"({"id": 9, "content": ")" + content + R"(", "normalized": false)" + more + "}";
  };
  EXPECT_TRUE(CutsWith(token("<x>")));
  EXPECT_TRUE(CutsWith(token("  x")));
  EXPECT_TRUE(CutsWith(token("▁x", R"(, "lstrip": true)")));
  EXPECT_TRUE(CutsWith(token("1", R"(, "rstrip": true)")));
  EXPECT_FALSE(CutsWith(token("xx", R"(, "rstrip": true)")));
  EXPECT_FALSE(CutsWith(token("x a")));
  EXPECT_FALSE(CutsWith(token("x▁")));
  EXPECT_FALSE(CutsWith(token(" x", R"(, "single_word": true)")));
  EXPECT_TRUE(CutsWith(token("xy", R"(, "single_word": true)")));
}

TEST(Cuts, DependOnEveryPart) {
  const auto cuts = [](const std::string& parts, const std::string& model = R"("merges": [],
                       "vocab": {"a": 0, "b": 1, "▁": 2, "▁b": 3, "a▁": 4})") {
    return TokenizerFromJson("{" + parts + (parts.empty() ? "" : ", ") + R"("model": {)" + model +
                             "}}")
               ->LastCut("a b", 3) == 1;
  };
  const auto pre = [](const std::string& part) { return "\"pre_tokenizer\": " + part; };
  const auto at_spaces = [](const std::string& behavior, bool invert) {
    return R"({"type": "Split", "pattern": {"Regex": " ?[^ ]+| "}, "behavior": ")" + behavior +
           R"(", "invert": )" + (invert ? "true}" : "false}");
  };
  const std::string marks = R"("normalizer": {"type": "Replace", "pattern": {"String": " "},
                                              "content": "▁"})";
  EXPECT_FALSE(cuts(""));
  EXPECT_TRUE(cuts(marks));
  EXPECT_TRUE(cuts(R"("normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})"));
  EXPECT_FALSE(cuts(R"("normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "x"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})"));
  EXPECT_FALSE(cuts(R"("normalizer": {"type": "Replace", "pattern": {"String": " "},
                                      "content": "_"})"));
  EXPECT_FALSE(cuts(R"("normalizer": {"type": "Replace", "pattern": {"Regex": " "},
                                      "content": "▁"})"));
  EXPECT_TRUE(cuts(pre(Metaspace(""))));
  EXPECT_TRUE(cuts(pre(Metaspace(R"(, "split": false)"))));
  EXPECT_FALSE(cuts(pre(Metaspace(R"(, "split": false, "replacement": "_")"))));
  EXPECT_TRUE(cuts(pre(at_spaces("Isolated", false))));
  EXPECT_TRUE(cuts(pre(at_spaces("Removed", true))));
  EXPECT_FALSE(cuts(pre(at_spaces("Removed", false))));
  EXPECT_FALSE(cuts(pre(at_spaces("Contiguous", false))));
  EXPECT_FALSE(cuts(pre(AtCommas("Isolated", false))));
  EXPECT_TRUE(cuts(pre(Sequence(AtCommas("Isolated", false), Metaspace("")))));
  EXPECT_TRUE(cuts(pre(Sequence(R"({"type": "Digits"})", at_spaces("Isolated", false)))));
  // After marks there is no space to split at.
  EXPECT_FALSE(cuts(pre(Sequence(Metaspace(R"(, "split": false)"), AtCommas("Isolated", false)))));
  EXPECT_TRUE(cuts(pre(R"({"type": "ByteLevel"})")));
  EXPECT_FALSE(cuts(pre(R"({"type": "ByteLevel", "use_regex": false})")));
  const std::string joined = Metaspace(R"(, "split": false)");
  const std::string digits = R"({"type": "Digits"})";
  EXPECT_TRUE(cuts(pre(Sequence(joined, Sequence(digits, digits)))));
  EXPECT_FALSE(cuts(pre(Sequence(joined, R"({"type": "ByteLevel"})"))));
  EXPECT_FALSE(cuts(pre(R"({"type": "Split", "pattern": {"Regex": "a ?|."},
                            "behavior": "Isolated"})")));
  EXPECT_FALSE(cuts(R"("normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Replace", "pattern": {"String": "x"}, "content": "y"},
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})"));
  EXPECT_TRUE(cuts(R"("normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})"));
  // A split at the spaces that the normalizer has taken away splits nothing.
  EXPECT_TRUE(cuts(marks + ", " + pre(R"({"type": "Split", "pattern": {"String": " "},
                                          "behavior": "MergedWithPrevious"})")));
  EXPECT_FALSE(cuts(marks + ", " + pre(R"({"type": "Split", "pattern": {"String": " "},
                                           "behavior": "MergedWithPrevious", "invert": true})")));
  // Merges that reach across a mark, whole words, a vocabulary without the mark.
  const std::string vocabulary = R"(, "vocab": {"a": 0, "b": 1, "▁": 2, "▁b": 3, "a▁": 4})";
  EXPECT_TRUE(cuts(marks, R"("merges": ["▁ b"])" + vocabulary));
  EXPECT_FALSE(cuts(marks, R"("merges": ["a ▁"])" + vocabulary));
  EXPECT_FALSE(cuts(marks, R"("merges": [], "ignore_merges": true)" + vocabulary));
  EXPECT_TRUE(cuts(marks, R"("merges": ["a b"], "vocab": {"a": 0, "b": 1, "ab": 2, "▁": 3})"));
  EXPECT_FALSE(cuts(marks, R"("merges": [], "vocab": {"a": 0, "b": 1})"));
}

TEST(Pieces, WithoutByteLevel) {
  const auto tokenizer = TokenizerFromJson(R"({"model": {"merges": [["▁", "b"]], "vocab": {
      "<0x41>": 0, "▁b": 1, "▁": 2, "b": 3, "<0x0A>": 4, "<0xZZ>": 5, "a": 6, "<0x20>": 8,
      "": 9}}})");
  EXPECT_EQ(tokenizer->Decode({3, 1, 2, 0, 4, 5}), "b b A\n<0xZZ>");
  EXPECT_EQ(tokenizer->Decode({1, 3}), " bb");  // nothing puts a space before texts
  EXPECT_EQ(tokenizer->Decode({6, 7}), "a");    // no token has the id 7
  EXPECT_EQ(tokenizer->Decode({}), "");
  EXPECT_EQ(tokenizer->Encode("b▁b"), (Ids{3, 1}));
  for (const int32_t id : {1, 2, 4, 8}) EXPECT_TRUE(tokenizer->BeginsWord(id)) << id;
  for (const int32_t id : {0, 3, 5, 6, 7, 9}) EXPECT_FALSE(tokenizer->BeginsWord(id)) << id;
  for (const char* byte : {"<0x09>", "<0x0B>", "<0x0C>", "<0x0D>"}) EXPECT_TRUE(IsSpaceByte(byte));
  EXPECT_FALSE(IsSpaceByte("<0x1F>"));
  EXPECT_EQ(ReadSpaceMarks("<0x41x"), "<0x41x");
  EXPECT_EQ(ReadSpaceMarks("<1x41>"), "<1x41>");
  EXPECT_EQ(ReadByteLevel("Ġa\u00ad"), "Ġa\u00ad");  // no character of the byte level
  EXPECT_EQ(ReadByteLevel("Ġ日"), "Ġ日");
  EXPECT_EQ(ReadByteLevel("\u0144"), "\u0144");
}

TEST(Pieces, OfByteLevel) {
  const auto tokenizer = TokenizerFromJson(R"({"added_tokens": [{"id": 4, "content": "Ġ<x>"}],
      "pre_tokenizer": {"type": "ByteLevel"}, "model": {"merges": [], "vocab": {
      "Ġ": 0, "a": 1, "Ã": 2, "©": 3}}})");
  EXPECT_EQ(tokenizer->Decode({0, 1, 2, 3}), " aé");
  EXPECT_EQ(tokenizer->Decode({1, 4}), "aĠ<x>");  // an added token is as it is written
}

TEST(Pieces, ATextThatBeginsWithTheSpaceOfTheTokenizerLosesIt) {
  const auto tokenizer = WithAdded("", R"("pre_tokenizer": {"type": "Metaspace"}, )");
  EXPECT_EQ(tokenizer->Encode("a b"), (Ids{8, 0, 8, 1}));
  EXPECT_EQ(tokenizer->Decode({8, 0, 8, 1}), "a b");
}

TEST(Cuts, AreSpacesBetweenLetters) {
  EXPECT_TRUE(IsSimpleSpace("a b", 1));
  EXPECT_FALSE(IsSimpleSpace("a b", 0));
  EXPECT_FALSE(IsSimpleSpace("a b", 2));
  EXPECT_FALSE(IsSimpleSpace("a b", 3));
  EXPECT_FALSE(IsSimpleSpace(" b", 0));
  EXPECT_FALSE(IsSimpleSpace("a ", 1));
}

TEST(FunctionTokenizer, HasNoPieces) {
  const auto tokenizer = TokenizerFromFunction([](const std::string&) { return Ids{-1}; }, 5);
  EXPECT_EQ(tokenizer->VocabularySize(), 5);
  EXPECT_THROW(tokenizer->Decode({1}), std::invalid_argument);
  EXPECT_THROW(tokenizer->Encode("a"), std::invalid_argument);
}

}  // namespace
}  // namespace lmfusion
