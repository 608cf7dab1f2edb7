#include "text/casing/cased_span.h"

#include <algorithm>

#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

bool Continues(char c) { return (c & 0xc0) == 0x80; }

bool IsAny(char32_t) { return true; }
bool IsNoSpace(char32_t c) { return !IsPythonSpace(c); }
bool IsLetterOrDigit(char32_t c) { return IsLetter(c) || IsDecimalDigit(c); }

using Kind = bool (*)(char32_t);

size_t Count(std::string_view text, Kind kind) {
  const std::u32string characters = DecodeUtf8(text);
  return static_cast<size_t>(std::count_if(characters.begin(), characters.end(), kind));
}

// The byte of `b` after as many characters of a kind as `a` has before byte `at`, where both have
// as many in all.
std::optional<size_t> AfterAsMany(std::string_view a, size_t at, std::string_view b, Kind kind) {
  if (Count(a, kind) != Count(b, kind)) return std::nullopt;
  size_t left = Count(a.substr(0, at), kind), i = 0;
  for (; left > 0; i += Utf8Length(b[i])) left -= kind(CharacterAt(b, i).value) ? 1 : 0;
  return i;
}

}  // namespace

std::optional<size_t> SameCharacters(std::string_view given, size_t at, std::string_view cased,
                                     size_t words) {
  for (const Kind kind : {IsAny, IsNoSpace, IsLetterOrDigit}) {
    if (const auto found = AfterAsMany(given, at, cased, kind)) return found;
  }
  const size_t begin = BeginOfLastWords(cased, words);
  return begin > 0 || cased.empty() ? std::optional<size_t>(begin) : std::nullopt;
}

size_t CountCodePoints(std::string_view text) {
  return text.size() - static_cast<size_t>(std::count_if(text.begin(), text.end(), Continues));
}

size_t SameCodePoint(std::string_view a, size_t at, std::string_view b) {
  size_t points = CountCodePoints(a.substr(0, at));
  size_t i = 0;
  while (i < b.size() && (points > 0 || Continues(b[i]))) points -= Continues(b[i++]) ? 0 : 1;
  return i;
}

size_t CountWords(std::string_view text) {
  size_t words = 0;
  bool inside = false;
  for (const char32_t c : DecodeUtf8(text)) {
    const bool space = IsPythonSpace(c);
    words += !space && !inside ? 1 : 0;
    inside = !space;
  }
  return words;
}

size_t BeginOfLastWords(std::string_view text, size_t words) {
  size_t at = text.size();
  for (; words > 0 && at > 0; --words) {
    while (at > 0 && text[at - 1] != ' ') --at;
    while (at > 0 && text[at - 1] == ' ') --at;
  }
  return at;
}

}  // namespace lmfusion
