#include "text/unicode/utf8.h"

#include <utf8proc.h>

#include <cstring>
#include <string>

#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

// The length of the run of ASCII characters from `at` on, rounded down to words of 8 bytes.
size_t AsciiWords(std::string_view text, size_t at) {
  const size_t begin = at;
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    if (word & 0x8080808080808080u) break;
  }
  return at - begin;
}

Utf8Character ValidCharacterAt(std::string_view text, size_t at) {
  const Utf8Character character = CharacterAt(text, at);
  if (character.value == kNoCharacter) {
    throw TextError("text is not valid UTF-8 at byte " + std::to_string(at) + " of " +
                    std::to_string(text.size()));
  }
  return character;
}

}  // namespace

Utf8Character CharacterAt(std::string_view text, size_t at) {
  if (at >= text.size()) return {};
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return {first, 1};
  utf8proc_int32_t c = 0;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                       static_cast<utf8proc_ssize_t>(text.size() - at), &c);
  if (length <= 0) return {};
  return {static_cast<char32_t>(c), static_cast<size_t>(length)};
}

Utf8Character CharacterBefore(std::string_view text, size_t at) {
  for (size_t bytes = 1; bytes <= 4 && bytes <= at; ++bytes) {
    if ((static_cast<unsigned char>(text[at - bytes]) & 0xc0) == 0x80) continue;
    const Utf8Character character = CharacterAt(text.substr(0, at), at - bytes);
    return character.bytes == bytes ? character : Utf8Character{};
  }
  return {};
}

void CheckUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t ascii = AsciiWords(text, at);
    at += ascii > 0 ? ascii : ValidCharacterAt(text, at).bytes;
  }
}

std::u32string DecodeUtf8(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Character character = ValidCharacterAt(text, at);
    out += character.value;
    at += character.bytes;
  }
  return out;
}

std::string EncodeUtf8(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  utf8proc_uint8_t bytes[4];
  for (const char32_t c : text) {
    const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
  }
  return out;
}

}  // namespace lmfusion
