// What texts become is what Python 3.11 and the module regex say.
#include "text/unicode/python_string.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

TEST(PythonString, LowerKnowsFinalSigma) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"İI", "i\u0307i"},
      {"ΑΣ", "ας"},
      {"ΑΣ Σ", "ας σ"},
      {"ΣΑ", "σα"},
      {"Α\u0301Σ", "α\u0301ς"},
      {"ΑΣ\u0301", "ας\u0301"},
      {"ΑΣ.Β", "ασ.β"},
      {"ΑΣ.", "ας."},
      {"1Σ", "1σ"},
      {"ΑΣ2", "ας2"},
      {"ªΣ", "ªς"},  // cased by Other_Lowercase, as "ⅰ" is
      {"ⅠΣ", "ⅰς"},
      {"AʰΣ", "aʰς"},
      {"A\u00adΣ", "a\u00adς"},
      {"A^Σ", "a^ς"},
      {"A\u20ddΣ", "a\u20ddς"},
      {"ʼΣ", "ʼσ"},
      {"AΣ日", "aς日"},
      {"\u0378Σ", "\u0378σ"},  // not assigned
      {"[Z]{z}@`", "[z]{z}@`"}};
  for (const auto& [text, lower] : cases) EXPECT_EQ(PythonLower(text), lower) << text;
}

TEST(PythonString, TitleAndCapitalize) {
  EXPECT_EQ(PythonTitle("ßa ǆx"), "Ssa ǅx");
  EXPECT_EQ(PythonCapitalize("ßa ǆx"), "Ssa ǆx");
  EXPECT_EQ(PythonTitle("1st {x}~a"), "1St {X}~A");
  EXPECT_EQ(PythonCapitalize("1st {x}~a"), "1st {x}~a");
  EXPECT_EQ(PythonTitle("ªa ⅰa"), "ªa Ⅰa");
  EXPECT_EQ(PythonTitle("éa'b"), "Éa'B");
  EXPECT_EQ(PythonTitle("[a]z{b}"), "[A]Z{B}");
}

TEST(PythonString, KindsOfCharacters) {
  for (const char32_t c :
       {0x61, 0x301, 0x20dd, 0x39, 0x2163, 0x5f, 0x203f, 0x200c, 0x200d, 0x24b6, 0x1f130}) {
    EXPECT_TRUE(IsRegexWord(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0xb2, 0x2764, 0x2d, 0x2605, 0x378}) {
    EXPECT_FALSE(IsRegexWord(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c :
       {0x14092, 0x1e030, 0x1e4ec, 0x10d40, 0x10d69}) {  // new in Unicode 15 and 16
    EXPECT_TRUE(IsRegexWord(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0x88f, 0x1ade, 0x1aeb, 0x33479}) {  // new in Unicode 17
    EXPECT_FALSE(IsRegexWord(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0x1d2c0, 0x1f6dc}) {
    EXPECT_FALSE(IsRegexWord(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0x9, 0xd, 0x20, 0x85, 0xa0, 0x1680, 0x2000, 0x200a, 0x2028, 0x2029,
                           0x202f, 0x205f, 0x3000}) {
    EXPECT_TRUE(IsRegexSpace(c) && IsPythonSpace(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0xe, 0x1b, 0x180e, 0x1fff, 0x200b}) {
    EXPECT_FALSE(IsRegexSpace(c) || IsPythonSpace(c)) << std::hex << static_cast<uint32_t>(c);
  }
  for (const char32_t c : {0x1c, 0x1f}) {  // separators: for `str` alone
    EXPECT_TRUE(!IsRegexSpace(c) && IsPythonSpace(c)) << std::hex << static_cast<uint32_t>(c);
  }
}

}  // namespace
}  // namespace lmfusion
