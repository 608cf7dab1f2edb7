#include "text/tokenizers/byte_level.h"

#include <array>

#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

constexpr char32_t kFirstStandIn = 0x100;
constexpr size_t kStandIns = 68;

bool WritesItself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

struct Alphabet {
  std::array<std::string, 256> character;
  std::array<char, kStandIns> stood_for;  // by character - kFirstStandIn

  Alphabet() {
    size_t stand_ins = 0;
    for (unsigned byte = 0; byte < 256; ++byte) {
      char32_t c = byte;
      if (!WritesItself(byte)) {
        stood_for[stand_ins] = static_cast<char>(byte);
        c = kFirstStandIn + static_cast<char32_t>(stand_ins++);
      }
      character[byte] = EncodeUtf8({&c, 1});
    }
  }
};

const Alphabet& ByteAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

std::string WriteByteLevel(std::string_view bytes) {
  const Alphabet& alphabet = ByteAlphabet();
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) out += alphabet.character[static_cast<unsigned char>(byte)];
  return out;
}

std::string ReadByteLevel(std::string_view piece) {
  const Alphabet& alphabet = ByteAlphabet();
  std::string out;
  for (size_t at = 0; at < piece.size();) {
    const Utf8Character c = CharacterAt(piece, at);
    if (c.value < 0x100 && WritesItself(c.value)) {
      out += static_cast<char>(c.value);
    } else if (c.value >= kFirstStandIn && c.value < kFirstStandIn + kStandIns) {
      out += alphabet.stood_for[c.value - kFirstStandIn];
    } else {
      return std::string(piece);
    }
    at += c.bytes;
  }
  return out;
}

}  // namespace lmfusion
