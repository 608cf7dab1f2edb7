#include "text/tokenizers/cuts.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

constexpr std::string_view kPunctuation = "!\"'(),-.:;?";

// Whether normalisation (canonical or compatible) leaves a letter a letter that ends with itself.
bool IsStable(char32_t c) {
  const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
  if (property->decomp_seqindex == UINT16_MAX) return true;
  constexpr char32_t kLatinToCyrillicEnd = 0x530;  // composed letters that compose again
  return property->decomp_type == 0 && c < kLatinToCyrillicEnd;
}

}  // namespace

bool IsCutNeighbour(char32_t c) {
  if (c < 0x80) {
    return (c >= U'a' && c <= U'z') || (c >= U'A' && c <= U'Z') ||
           kPunctuation.find(static_cast<char>(c)) != std::string_view::npos;
  }
  return IsLetter(c) && IsStable(c);
}

const std::u32string& CutNeighbours() {
  static const std::u32string all = [] {
    std::u32string found;
    for (char32_t c = 0; c <= 0x10ffff; ++c) {
      if (IsCutNeighbour(c)) found += c;
    }
    return found;
  }();
  return all;
}

bool IsSimpleSpace(std::string_view text, size_t at) {
  if (at == 0 || at >= text.size() || text[at] != ' ') return false;
  const Utf8Character before = CharacterBefore(text, at), after = CharacterAt(text, at + 1);
  return before.value != kNoCharacter && after.value != kNoCharacter &&
         IsCutNeighbour(before.value) && IsCutNeighbour(after.value);
}

size_t LastSimpleSpace(std::string_view text, size_t at) {
  if (text.empty()) return 0;
  size_t c = std::min(at, text.size() - 1);
  while (c > 0 && !IsSimpleSpace(text, c)) --c;
  return c;
}

}  // namespace lmfusion
