#include "text/unicode/python_string.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "text/unicode/category.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

struct Range {
  char32_t first, last;
};

// Cased in the sense of Unicode (Other_Uppercase, Other_Lowercase), beside Lu, Ll and Lt.
constexpr Range kOtherCased[] = {
    {0xaa, 0xaa},       {0xba, 0xba},       {0x2b0, 0x2b8},     {0x2c0, 0x2c1},
    {0x2e0, 0x2e4},     {0x345, 0x345},     {0x37a, 0x37a},     {0x1d2c, 0x1d6a},
    {0x1d78, 0x1d78},   {0x1d9b, 0x1dbf},   {0x2071, 0x2071},   {0x207f, 0x207f},
    {0x2090, 0x209c},   {0x2160, 0x217f},   {0x24b6, 0x24e9},   {0x2c7c, 0x2c7d},
    {0xa69c, 0xa69d},   {0xa770, 0xa770},   {0xa7f8, 0xa7f9},   {0xab5c, 0xab5f},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba},
    {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}};

// Case_Ignorable beside the categories Mn, Me, Cf, Lm and Sk.
constexpr char32_t kOtherCaseIgnorable[] = {0x27,   0x2e,   0x3a,   0xb7,   0x387,  0x55f,
                                            0x5f4,  0x2018, 0x2019, 0x2024, 0x2027, 0xfe13,
                                            0xfe52, 0xfe55, 0xff07, 0xff0e, 0xff1a};

// Title-case mappings to more than one code point (Unicode SpecialCasing).
struct Expansion {
  char32_t from;
  char32_t to[4];  // ends with 0
};
constexpr Expansion kTitleExpansions[] = {{0xdf, {0x53, 0x73}},
                                          {0x149, {0x2bc, 0x4e}},
                                          {0x1f0, {0x4a, 0x30c}},
                                          {0x390, {0x399, 0x308, 0x301}},
                                          {0x3b0, {0x3a5, 0x308, 0x301}},
                                          {0x587, {0x535, 0x582}},
                                          {0x1e96, {0x48, 0x331}},
                                          {0x1e97, {0x54, 0x308}},
                                          {0x1e98, {0x57, 0x30a}},
                                          {0x1e99, {0x59, 0x30a}},
                                          {0x1e9a, {0x41, 0x2be}},
                                          {0x1f50, {0x3a5, 0x313}},
                                          {0x1f52, {0x3a5, 0x313, 0x300}},
                                          {0x1f54, {0x3a5, 0x313, 0x301}},
                                          {0x1f56, {0x3a5, 0x313, 0x342}},
                                          {0x1fb2, {0x1fba, 0x345}},
                                          {0x1fb4, {0x386, 0x345}},
                                          {0x1fb6, {0x391, 0x342}},
                                          {0x1fb7, {0x391, 0x342, 0x345}},
                                          {0x1fc2, {0x1fca, 0x345}},
                                          {0x1fc4, {0x389, 0x345}},
                                          {0x1fc6, {0x397, 0x342}},
                                          {0x1fc7, {0x397, 0x342, 0x345}},
                                          {0x1fd2, {0x399, 0x308, 0x300}},
                                          {0x1fd3, {0x399, 0x308, 0x301}},
                                          {0x1fd6, {0x399, 0x342}},
                                          {0x1fd7, {0x399, 0x308, 0x342}},
                                          {0x1fe2, {0x3a5, 0x308, 0x300}},
                                          {0x1fe3, {0x3a5, 0x308, 0x301}},
                                          {0x1fe4, {0x3a1, 0x313}},
                                          {0x1fe6, {0x3a5, 0x342}},
                                          {0x1fe7, {0x3a5, 0x308, 0x342}},
                                          {0x1ff2, {0x1ffa, 0x345}},
                                          {0x1ff4, {0x38f, 0x345}},
                                          {0x1ff6, {0x3a9, 0x342}},
                                          {0x1ff7, {0x3a9, 0x342, 0x345}},
                                          {0xfb00, {0x46, 0x66}},
                                          {0xfb01, {0x46, 0x69}},
                                          {0xfb02, {0x46, 0x6c}},
                                          {0xfb03, {0x46, 0x66, 0x69}},
                                          {0xfb04, {0x46, 0x66, 0x6c}},
                                          {0xfb05, {0x53, 0x74}},
                                          {0xfb06, {0x53, 0x74}},
                                          {0xfb13, {0x544, 0x576}},
                                          {0xfb14, {0x544, 0x565}},
                                          {0xfb15, {0x544, 0x56b}},
                                          {0xfb16, {0x54e, 0x576}},
                                          {0xfb17, {0x544, 0x56d}}};

bool IsCased(char32_t c) {
  const utf8proc_category_t category = Category(c);
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LT) return true;
  const auto holds = [c](const Range& range) { return c >= range.first && c <= range.last; };
  return c >= 0x80 && std::any_of(std::begin(kOtherCased), std::end(kOtherCased), holds);
}

bool IsCaseIgnorable(char32_t c) {
  switch (Category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default:
      return std::find(std::begin(kOtherCaseIgnorable), std::end(kOtherCaseIgnorable), c) !=
             std::end(kOtherCaseIgnorable);
  }
}

// A capital sigma at `at` ends a word, so its lower-case form is U+03C2.
bool IsFinalSigma(std::u32string_view text, size_t at) {
  size_t before = at;
  while (before > 0 && IsCaseIgnorable(text[before - 1])) --before;
  if (before == 0 || !IsCased(text[before - 1])) return false;
  size_t after = at + 1;
  while (after < text.size() && IsCaseIgnorable(text[after])) ++after;
  return after == text.size() || !IsCased(text[after]);
}

void AppendLower(std::u32string_view text, size_t at, std::u32string* out) {
  const char32_t c = text[at];
  if (c == 0x130) {
    *out += {U'i', 0x307};
  } else if (c == 0x3a3) {
    *out += IsFinalSigma(text, at) ? char32_t{0x3c2} : char32_t{0x3c3};
  } else {
    *out += SimpleLower(c);
  }
}

void AppendTitle(char32_t c, std::u32string* out) {
  for (const Expansion& expansion : kTitleExpansions) {
    if (c == expansion.from) {
      *out += expansion.to;
      return;
    }
  }
  *out += static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c)));
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

bool IsAsciiUpper(char c) { return c >= 'A' && c <= 'Z'; }
bool IsAsciiLower(char c) { return c >= 'a' && c <= 'z'; }
char AsciiLower(char c) { return IsAsciiUpper(c) ? static_cast<char>(c + 32) : c; }
char AsciiUpper(char c) { return IsAsciiLower(c) ? static_cast<char>(c - 32) : c; }

}  // namespace

std::string PythonLower(std::string_view text) {
  if (IsAscii(text)) {
    std::string out(text);
    std::transform(out.begin(), out.end(), out.begin(), AsciiLower);
    return out;
  }
  const std::u32string decoded = DecodeUtf8(text);
  std::u32string out;
  for (size_t i = 0; i < decoded.size(); ++i) AppendLower(decoded, i, &out);
  return EncodeUtf8(out);
}

std::string PythonTitle(std::string_view text) {
  if (IsAscii(text)) {
    std::string out(text);
    bool after_letter = false;
    for (char& c : out) {
      c = after_letter ? AsciiLower(c) : AsciiUpper(c);
      after_letter = IsAsciiLower(c) || IsAsciiUpper(c);
    }
    return out;
  }
  const std::u32string decoded = DecodeUtf8(text);
  std::u32string out;
  bool after_cased = false;
  for (size_t i = 0; i < decoded.size(); ++i) {
    if (after_cased) {
      AppendLower(decoded, i, &out);
    } else {
      AppendTitle(decoded[i], &out);
    }
    after_cased = IsCased(decoded[i]);
  }
  return EncodeUtf8(out);
}

std::string PythonCapitalize(std::string_view text) {
  const std::u32string decoded = DecodeUtf8(text);
  std::u32string out;
  for (size_t i = 0; i < decoded.size(); ++i) {
    if (i == 0) {
      AppendTitle(decoded[i], &out);
    } else {
      AppendLower(decoded, i, &out);
    }
  }
  return EncodeUtf8(out);
}

char32_t SimpleLower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

bool IsRegexSpace(char32_t c) {
  return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool IsPythonSpace(char32_t c) { return IsRegexSpace(c) || (c >= 0x1c && c <= 0x1f); }

bool IsLetter(char32_t c) {
  const utf8proc_category_t category = Category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDecimalDigit(char32_t c) { return Category(c) == UTF8PROC_CATEGORY_ND; }

bool IsRegexWord(char32_t c) {
  const utf8proc_category_t category = Category(c);
  if (category == UTF8PROC_CATEGORY_CN) {
    const std::string_view added = AddedCategory(c);
    return added == "Nd" || added.substr(0, 1) == "L" || added.substr(0, 1) == "M";
  }
  const bool is_letter_or_mark = category <= UTF8PROC_CATEGORY_ME;  // Lu to Lo, Mn to Me
  return is_letter_or_mark || category == UTF8PROC_CATEGORY_ND ||
         category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_PC || c == 0x200c ||
         c == 0x200d || (category == UTF8PROC_CATEGORY_SO && IsCased(c));
}

}  // namespace lmfusion
