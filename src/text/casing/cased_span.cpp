#include "text/casing/cased_span.h"

#include <algorithm>

#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

bool Continues(char c) { return (c & 0xc0) == 0x80; }

}  // namespace

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
