// Patterns written for Oniguruma, read as PCRE2's. The words are those of the package tokenizers.
#include "text/tokenizers/split_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "lmfusion/errors.h"
#include "text/tokenizers/pattern_syntax.h"

namespace lmfusion {
namespace {

using Words = std::vector<std::string>;

Words Split(std::string_view pattern, std::string_view text) {
  std::vector<std::string_view> parts;
  SplitPattern(pattern).Split(text, SplitBehavior::kIsolated, false, &parts);
  return Words(parts.begin(), parts.end());
}

TEST(SplitPattern, MeansWhatItMeansToThePackageTokenizers) {
  EXPECT_EQ(Split("a{2,3}", "aaaab"), (Words{"aaa", "ab"}));
  EXPECT_EQ(Split("a{2}", "aaaab"), (Words{"aa", "aa", "b"}));
  EXPECT_EQ(Split("a{2,}?", "aaaab"), (Words{"aa", "aa", "b"}));
  EXPECT_EQ(Split("a+?", "aab"), (Words{"a", "a", "b"}));
  EXPECT_EQ(Split("a*+b", "caab"), (Words{"c", "aab"}));
  EXPECT_EQ(Split("a?+b", "ab"), Words{"ab"});
  EXPECT_EQ(Split(R"(\S+)", "a\u180eb c"), (Words{"a\u180eb", " ", "c"}));
  EXPECT_EQ(Split(R"(\s)", "a\u180e b\u0085c"), (Words{"a\u180e", " ", "b", "\u0085", "c"}));
  EXPECT_EQ(Split(R"(\P{L}+)", "ab12c"), (Words{"ab", "12", "c"}));
  EXPECT_EQ(Split(R"([\p{L}x]+)", "ab1"), (Words{"ab", "1"}));
  EXPECT_EQ(Split(R"(\p{N})", "a½1"), (Words{"a", "½", "1"}));
  EXPECT_EQ(Split(R"([^\p{L}]+)", "ab12"), (Words{"ab", "12"}));
  EXPECT_EQ(Split(R"([\P{Sc}]+)", "ab$"), (Words{"ab", "$"}));
  EXPECT_EQ(Split(R"(\u0061b)", "cab"), (Words{"c", "ab"}));
  EXPECT_EQ(Split(R"(\x{61})", "ba"), (Words{"b", "a"}));
  EXPECT_EQ(Split(R"(\.\-\ )", "a.- b"), (Words{"a", ".- ", "b"}));
  EXPECT_EQ(Split("(ab)+c", "xababc"), (Words{"x", "ababc"}));
  EXPECT_EQ(Split("(?i:AB)", "xab"), (Words{"x", "ab"}));
  EXPECT_EQ(Split("b$", "ab\nb"), (Words{"a", "b", "\n", "b"}));
  EXPECT_EQ(Split("^b", "b\nbb"), (Words{"b", "\n", "b", "b"}));
  EXPECT_EQ(Split("(?>a+)b", "aab"), Words{"aab"});
  EXPECT_EQ(Split("(?:a$|b)", "a\nba"), (Words{"a", "\n", "b", "a"}));
  EXPECT_EQ(Split("(?:x|(?:y|z))+", "axyzb"), (Words{"a", "xyz", "b"}));
  EXPECT_EQ(Split(R"(\t|\n|\r|\f)", "a\tb\nc"), (Words{"a", "\t", "b", "\n", "c"}));
  EXPECT_EQ(Split(R"([a\-z]+)", "a-z!b"), (Words{"a-z", "!b"}));
  EXPECT_EQ(Split(R"(x(?!\S))", "x xa x"), (Words{"x", " xa ", "x"}));
}

TEST(SplitPattern, CategoriesHaveGrown) {
  const std::string kawi_digit = "\U00011f50", kawi_letter = "\U00011f04";  // Unicode 15
  EXPECT_EQ(Split(R"(\p{L}+|\d)", kawi_letter + kawi_digit), (Words{kawi_letter, kawi_digit}));
  EXPECT_EQ(Split(R"(\P{L}+)", "a" + kawi_letter + "1"), (Words{"a" + kawi_letter, "1"}));
  EXPECT_EQ(Split(R"(\p{Lo})", kawi_letter + "a"), (Words{kawi_letter, "a"}));
}

TEST(SplitPattern, WhatIsNotImplementedIsNamed) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"a)", "an unmatched ) at byte 1"},
      {"(?#x)", "a group of this kind at byte 0"},
      {"(?<x>a)", "a group of this kind"},
      {"(a", "a group without end"},
      {"*a", "a repetition of nothing at byte 0"},
      {"a{,2}", "a { that is not a repetition"},
      {"a{}", "a { that is not a repetition"},
      {"a{2", "a { that is not a repetition"},
      {"a{x}", "a { that is not a repetition"},
      {"a{2}+", "a repetition of a repetition"},
      {"a{2}*", "a repetition of a repetition"},
      {"a+*", "a repetition of a repetition"},
      {"a+?{2}", "a repetition of a repetition"},
      {"[]", "an empty class"},
      {"[^]a]", "an empty class"},
      {"[a", "a class without end"},
      {"[a[b]]", "a class within a class"},
      {"[a&&b]", "an intersection of classes"},
      {"[\\P{L}]", "\\P in a class"},
      {"[\\S]", "the escape \\S"},
      {"\\w", "the escape \\w"},
      {"\\p", "an escape without its braces"},
      {"\\pL", "an escape without its braces"},
      {"\\p{L", "an escape without its braces"},
      {"\\p{}", "cannot be used"},
      {"\\u00", "an escape \\u without four digits"},
      {"\\u00g1", "an escape \\u without four digits"},
      {std::string(60, '(') + "a" + std::string(60, ')'), "too many nested groups"},
      {"a*", "matches empty text"},
      {"(?=b)", "matches empty text"},
      {"b|(?<=a)", "matches empty text"},
      {"(?<=a+)b", "cannot be used"},
  };
  for (const auto& [pattern, message] : wrong) {
    try {
      const SplitPattern read(pattern);
      ADD_FAILURE() << pattern;
    } catch (const TokenizerError& error) {
      EXPECT_THAT(std::string(error.what()), testing::HasSubstr(message)) << pattern;
    }
  }
  EXPECT_THROW(SplitPattern("a\\"), TokenizerError);  // nothing follows
}

TEST(SplitPattern, RespectForCutsIsFoundInEveryAtom) {
  for (const char* pattern : {R"( (?!\S)|.)", "(?:ab)+|.", "b"}) {
    EXPECT_TRUE(SplitPattern(pattern).RespectsCuts()) << pattern;
  }
  // "$" after a letter would look at what stands behind the cut.
  for (const char* pattern : {" ?a+$|.", R"( ?\S+$)"}) {
    EXPECT_FALSE(SplitPattern(pattern).RespectsCuts()) << pattern;
  }
  EXPECT_TRUE(SplitPattern("(?:1)b| ").RespectsCuts());  // a digit is no neighbour of a cut
  EXPECT_FALSE(SplitPattern("(?:a$|b)").RespectsCuts());
  EXPECT_FALSE(SplitPattern("(?:ab)+ |.").RespectsCuts());
  EXPECT_FALSE(SplitPattern("[a-z]").SplitsAtCuts());   // most letters are no match
  EXPECT_FALSE(SplitPattern(R"(\S+)").SplitsAtCuts());  // the space is a word of its own
}

TEST(SplitPattern, LongWordsNeedNoDeepStack) {
  std::string word;
  for (int i = 0; i < 100'000; ++i) word += "ab";
  EXPECT_EQ(Split("(?:a|b)+", word + " b"), (Words{word, " ", "b"}));
  EXPECT_EQ(Split("(?:(?:a|b)(?:a|b))+?c|.", "abc"), Words{"abc"});
}

TEST(QuotePattern, TextMatchesItself) {
  const std::string text = "a.b*[c](d)\\e{2}|^$ é";
  EXPECT_EQ(Split(QuotePattern(text), "x" + text + "y"), (Words{"x", text, "y"}));
}

}  // namespace
}  // namespace lmfusion
