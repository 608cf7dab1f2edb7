#include "lmfusion/casing.h"

#include <gtest/gtest.h>

#include <cctype>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "lmfusion/join.h"

namespace lmfusion {
namespace {

// The context, a bar, and the candidate.
std::string Split(const CasedText& cased) {
  std::string text = cased.text;
  return text.insert(cased.context_bytes, "|");
}

// Joined by a space.
std::string Joined(std::string_view context, std::string_view word) {
  return std::string(Separator(context, word, Join::kSpace)).append(word);
}
CasedText Cased(const Casing& casing, std::string_view context, std::string_view word) {
  return casing.Apply(context, Joined(context, word));
}

TEST(Casing, NoneIsAsGiven) {
  const auto casing = CasingByName("none");
  EXPECT_EQ(Split(Cased(*casing, "i am", "tom")), "i am| tom");
  EXPECT_EQ(Split(Cased(*casing, "i am ", "tom")), "i am |tom");
  EXPECT_EQ(Split(Cased(*casing, "", " tom")), "| tom");
  EXPECT_EQ(Split(Cased(*casing, "a", "")), "a|");
  EXPECT_EQ(casing->Alternatives("a", Joined("a", "b")).size(), 1u);
}

TEST(Casing, SentenceCapitalisesTheFirstLetterAndI) {
  const auto casing = CasingByName("sentence");
  EXPECT_EQ(Split(Cased(*casing, "so i", "think")), "So I| think");
  EXPECT_EQ(Split(Cased(*casing, "so", "i'm")), "So| I'm");
  EXPECT_EQ(Split(Cased(*casing, "so", "i'll i'd i've it i.e.")), "So| I'll I'd I've it i.e.");
  EXPECT_EQ(Split(Cased(*casing, "so", "i,")), "So| I,");
  EXPECT_EQ(Split(Cased(*casing, "so", "i2 i\ti\ri")), "So| i2 I\tI\rI");
  EXPECT_EQ(Split(Cased(*casing, "", "hello")), "|Hello");
  EXPECT_EQ(Split(Cased(*casing, "'", "hello")), "'| Hello");
  EXPECT_EQ(Split(Cased(*casing, "...", "")), "...|");
  EXPECT_EQ(Split(Cased(*casing, "", "écoute")), "|Écoute");
  EXPECT_EQ(Split(Cased(*casing, "", "ßa")), "|Ssa");              // no capital of one character
  EXPECT_EQ(Split(Cased(*casing, "2nd", "place")), "2nd| place");  // a digit comes first
}

TEST(Casing, SentenceKnowsIWithAnyApostropheAndMarks) {
  const auto casing = CasingByName("sentence");
  for (const auto& [given, wanted] : std::vector<std::pair<std::string, std::string>>{
           {"so i’m i’ll", "So I’m I’ll"},
           {"he said \"i know\" “i do” (i think)", "He said \"I know\" “I do” (I think)"},
           {"‘i’m", "‘I’m"},
           {"and i.", "And I."},
           {"i.e. i-beams, in i/o, ice", "I.e. i-beams, in i/o, ice"},
           {"so i很好", "So I很好"},
           {"so 我i", "So 我i"}}) {
    EXPECT_EQ(casing->Apply("", given).text, wanted);
  }
}

TEST(Casing, SentenceCasesAContextAlikeBeforeAnyWord) {
  const auto casing = CasingByName("sentence");
  for (const std::string context : {"", "i", "well i", "so i'", "' ", "2", "i ", "\"", "x \"",
                                    "so “", "so i’", "x-", "so 我"}) {
    for (const std::string word :
         {"", "m", "i", "'m", " x", "i'm", ".", "’m", "'s", "”", "很", "i."}) {
      const std::string joined = std::string(Separator(context, word, Join::kAuto)) + word;
      const CasedText cased = casing->Apply(context, joined);
      EXPECT_EQ(cased.text, casing->Apply("", context + joined).text) << context << "+" << word;
      EXPECT_EQ(cased.text.substr(0, cased.context_bytes), Cased(*casing, "", context).text)
          << context << "+" << word;
    }
  }
}

TEST(Casing, VariantsAreDistinct) {
  const auto casing = CasingByName("variants");
  std::vector<std::string> forms;
  for (const CasedText& cased : casing->Alternatives("a", Joined("a", "tom")))
    forms.push_back(Split(cased));
  EXPECT_EQ(forms, (std::vector<std::string>{"a| tom", "a| Tom", "a| TOM"}));
  EXPECT_EQ(Split(casing->Alternatives("a", Joined("a", "maß")).at(2)), "a| MASS");
  EXPECT_EQ(Split(casing->Alternatives("a", Joined("a", "3rd")).at(1)), "a| 3RD");
  EXPECT_EQ(casing->Alternatives("a", Joined("a", "i")).size(), 2u);
  EXPECT_EQ(casing->Alternatives("a", Joined("a", "I")).size(), 1u);
  EXPECT_EQ(casing->Alternatives("a", Joined("a", "42")).size(), 1u);
  EXPECT_EQ(Split(Cased(*casing, "a", "tom")), "a| tom");  // whole texts are as given
}

TEST(Casing, FunctionThatKeepsTheNumberOfCharacters) {
  const auto casing = CasingFromFunction([](const std::string& text) {
    std::string upper = text;
    for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return upper;
  });
  EXPECT_EQ(Split(Cased(*casing, "i am", "tom")), "I AM| TOM");
  EXPECT_EQ(Split(Cased(*casing, "", "tom")), "|TOM");
  // One code point for another, of another number of bytes.
  const auto umlaut = CasingFromFunction([](const std::string& text) {
    std::string out;
    for (const char c : text) out += c == 'o' ? "ö" : std::string(1, c);
    return out;
  });
  EXPECT_EQ(Split(Cased(*umlaut, "no", "tom")), "nö| töm");
}

TEST(Casing, FunctionThatChangesTheNumberOfCharacters) {
  const auto casing = CasingFromFunction([](const std::string& text) { return text + "!!"; });
  EXPECT_EQ(Split(Cased(*casing, "i am", "tom")), "i am| tom!!");
  EXPECT_EQ(Split(Cased(*casing, "i am", "tom jones")), "i am| tom jones!!");
  const auto letters = CasingFromFunction([](const std::string& text) {
    return text.substr(0, 1) + "." + text.substr(2) + "!";  // of "a 1": as many letters and digits
  });
  EXPECT_EQ(Split(Cased(*letters, "a", "1")), "a|.1!");
  const auto empty = CasingFromFunction([](const std::string&) { return ""; });
  EXPECT_EQ(Split(Cased(*empty, "a", "b")), "|");
}

// However the separator is changed, the candidate is its own characters.
TEST(Casing, FunctionThatChangesTheSeparator) {
  const auto closed = CasingFromFunction([](const std::string& text) {
    std::string out;
    for (const char c : text) out += c == ' ' ? "" : std::string(1, c);
    return out;
  });
  EXPECT_EQ(Split(closed->Apply("今天 天气", " 很好")), "今天天气|很好");
  EXPECT_EQ(Split(closed->Apply("do", " n't")), "do|n't");
  const auto wide = CasingFromFunction([](const std::string& text) {
    std::string out;
    for (const char c : text) out += c == ' ' ? "  " : std::string(1, c);
    return out;
  });
  EXPECT_EQ(Split(wide->Apply("a b", " c")), "a  b|  c");
  const auto dotted = CasingFromFunction([](const std::string& text) { return text + "。"; });
  EXPECT_EQ(Split(dotted->Apply("今天天气", "很好")), "今天天气|很好。");
  const auto one_word = CasingFromFunction([](const std::string&) { return "other"; });
  EXPECT_THROW(one_word->Apply("今天天气", "很好"), std::invalid_argument);
  EXPECT_EQ(Split(one_word->Apply("", "很好")), "|other");
}

TEST(Casing, RefusesTextsThatAreNotUtf8) {
  for (const char* name : {"none", "sentence", "variants"}) {
    const auto casing = CasingByName(name);
    EXPECT_THROW(Cased(*casing, "\xff", "a"), TextError) << name;
    EXPECT_THROW(casing->Alternatives("a", "\xc3"), TextError) << name;
  }
  const auto broken = CasingFromFunction([](const std::string&) { return "\xff"; });
  EXPECT_THROW(Cased(*broken, "a", "b"), TextError);
}

TEST(Casing, RefusesWhatItDoesNotKnow) {
  EXPECT_THROW(CasingByName("title"), std::invalid_argument);
  EXPECT_THROW(CasingFromFunction(nullptr), std::invalid_argument);
}

}  // namespace
}  // namespace lmfusion
