#include "lmfusion/casing.h"

#include <gtest/gtest.h>

#include <cctype>
#include <stdexcept>
#include <string>
#include <vector>

#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

// The context, a bar, and the candidate.
std::string Split(const CasedText& cased) {
  std::string text = cased.text;
  return text.insert(cased.context_bytes, "|");
}

TEST(Casing, JoinsWithOneSpaceWhereNoneIs) {
  EXPECT_TRUE(NeedsSpace("a", "b"));
  EXPECT_FALSE(NeedsSpace("", "b"));
  EXPECT_FALSE(NeedsSpace("a ", "b"));
  EXPECT_FALSE(NeedsSpace("a", " b"));
  EXPECT_FALSE(NeedsSpace("a", ""));
  EXPECT_TRUE(NeedsSpace("a\n", "b"));  // only the space counts
}

TEST(Casing, NoneIsAsGiven) {
  const auto casing = CasingByName("none");
  EXPECT_EQ(Split(casing->Apply("i am", "tom")), "i am| tom");
  EXPECT_EQ(Split(casing->Apply("i am ", "tom")), "i am |tom");
  EXPECT_EQ(Split(casing->Apply("", " tom")), "| tom");
  EXPECT_EQ(Split(casing->Apply("a", "")), "a|");
  EXPECT_EQ(casing->Alternatives("a", "b").size(), 1u);
}

TEST(Casing, SentenceCapitalisesTheFirstLetterAndI) {
  const auto casing = CasingByName("sentence");
  EXPECT_EQ(Split(casing->Apply("so i", "think")), "So I| think");
  EXPECT_EQ(Split(casing->Apply("so", "i'm")), "So| I'm");
  EXPECT_EQ(Split(casing->Apply("so", "i'll i'd i've it i.e.")), "So| I'll I'd I've it i.e.");
  EXPECT_EQ(Split(casing->Apply("so", "i,")), "So| I,");
  EXPECT_EQ(Split(casing->Apply("", "hello")), "|Hello");
  EXPECT_EQ(Split(casing->Apply("'", "hello")), "'| Hello");
  EXPECT_EQ(Split(casing->Apply("...", "")), "...|");
  EXPECT_EQ(Split(casing->Apply("", "écoute")), "|Écoute");
  EXPECT_EQ(Split(casing->Apply("", "ßa")), "|Ssa");              // no capital of one character
  EXPECT_EQ(Split(casing->Apply("2nd", "place")), "2nd| place");  // a digit comes first
}

TEST(Casing, SentenceCasesAContextAlikeBeforeAnyWord) {
  const auto casing = CasingByName("sentence");
  for (const char* context : {"", "i", "well i", "i'", "' ", "2", "i "}) {
    for (const char* word : {"", "m", "i", "'m", " x", "i'm"}) {
      const CasedText cased = casing->Apply(context, word);
      EXPECT_EQ(cased.text.substr(0, cased.context_bytes), casing->Apply("", context).text)
          << context << "+" << word;
    }
  }
}

TEST(Casing, VariantsAreDistinct) {
  const auto casing = CasingByName("variants");
  std::vector<std::string> forms;
  for (const CasedText& cased : casing->Alternatives("a", "tom")) forms.push_back(Split(cased));
  EXPECT_EQ(forms, (std::vector<std::string>{"a| tom", "a| Tom", "a| TOM"}));
  EXPECT_EQ(Split(casing->Alternatives("a", "maß").at(2)), "a| MASS");
  EXPECT_EQ(Split(casing->Alternatives("a", "3rd").at(1)), "a| 3RD");
  EXPECT_EQ(casing->Alternatives("a", "i").size(), 2u);
  EXPECT_EQ(casing->Alternatives("a", "I").size(), 1u);
  EXPECT_EQ(casing->Alternatives("a", "42").size(), 1u);
  EXPECT_EQ(Split(casing->Apply("a", "tom")), "a| tom");  // whole texts are as given
}

TEST(Casing, FunctionThatKeepsTheNumberOfCharacters) {
  const auto casing = CasingFromFunction([](const std::string& text) {
    std::string upper = text;
    for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return upper;
  });
  EXPECT_EQ(Split(casing->Apply("i am", "tom")), "I AM| TOM");
  EXPECT_EQ(Split(casing->Apply("", "tom")), "|TOM");
  // One code point for another, of another number of bytes.
  const auto umlaut = CasingFromFunction([](const std::string& text) {
    std::string out;
    for (const char c : text) out += c == 'o' ? "ö" : std::string(1, c);
    return out;
  });
  EXPECT_EQ(Split(umlaut->Apply("no", "tom")), "nö| töm");
}

TEST(Casing, FunctionThatChangesTheNumberOfCharacters) {
  const auto casing = CasingFromFunction([](const std::string& text) { return text + "!!"; });
  EXPECT_EQ(Split(casing->Apply("i am", "tom")), "i am| tom!!");
  EXPECT_EQ(Split(casing->Apply("i am", "tom jones")), "i am| tom jones!!");
  const auto empty = CasingFromFunction([](const std::string&) { return ""; });
  EXPECT_EQ(Split(empty->Apply("a", "b")), "|");
}

TEST(Casing, RefusesTextsThatAreNotUtf8) {
  for (const char* name : {"none", "sentence", "variants"}) {
    const auto casing = CasingByName(name);
    EXPECT_THROW(casing->Apply("\xff", "a"), TextError) << name;
    EXPECT_THROW(casing->Alternatives("a", "\xc3"), TextError) << name;
  }
  const auto broken = CasingFromFunction([](const std::string&) { return "\xff"; });
  EXPECT_THROW(broken->Apply("a", "b"), TextError);
}

TEST(Casing, RefusesWhatItDoesNotKnow) {
  EXPECT_THROW(CasingByName("title"), std::invalid_argument);
  EXPECT_THROW(CasingFromFunction(nullptr), std::invalid_argument);
}

}  // namespace
}  // namespace lmfusion
