#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lmfusion {

// Throws TextError (with the byte where it is wrong) unless `text` is valid UTF-8: no surrogates,
// no overlong forms, nothing above U+10FFFF. NUL is a character like any other.
void CheckUtf8(std::string_view text);

// The code points of `text`; throws as CheckUtf8 does.
std::u32string DecodeUtf8(std::string_view text);
std::string EncodeUtf8(std::u32string_view text);

constexpr char32_t kNoCharacter = 0xffffffff;

// One code point and its bytes; value is kNoCharacter at an end of the text or where the bytes
// there are not valid UTF-8.
struct Utf8Character {
  char32_t value = kNoCharacter;
  size_t bytes = 0;
};
Utf8Character CharacterAt(std::string_view text, size_t at);
Utf8Character CharacterBefore(std::string_view text, size_t at);

// The length that the first byte of a character in valid UTF-8 announces.
inline size_t Utf8Length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

}  // namespace lmfusion
