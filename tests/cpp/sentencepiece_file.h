#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "text/tokenizers/sentencepiece_model.h"

namespace lmfusion {

// Fields of a protocol buffer.
inline std::string ProtoNumber(int field, uint64_t value) {
  std::string out(1, static_cast<char>(field << 3));
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

inline std::string ProtoBytes(int field, std::string_view bytes) {
  std::string out = ProtoNumber(field, bytes.size());
  out[0] = static_cast<char>(field << 3 | 2);
  return out.append(bytes);
}

inline std::string SentencePieceEntry(std::string_view piece, float score, uint64_t type = 1) {
  char bits[4];
  std::memcpy(bits, &score, 4);
  const std::string score_field = std::string(1, 2 << 3 | 5) + std::string(bits, 4);
  return ProtoBytes(1, ProtoBytes(1, piece) + score_field + ProtoNumber(3, type));
}

// A BPE model: <unk> 0, "▁" 1, "a" 2, "b" 3, "ab" 4, "▁ab" 5.
inline std::string TinySentencePieceModel(const std::string& more = "",
                                          const std::string& charsmap = "") {
  return SentencePieceEntry("<unk>", 0, 2) + SentencePieceEntry("\u2581", -3) +
         SentencePieceEntry("a", -4) + SentencePieceEntry("b", -5) + SentencePieceEntry("ab", -1) +
         SentencePieceEntry("\u2581ab", -2) + more +
         ProtoBytes(2, ProtoNumber(3, SentencePieceTraits::kBpe)) +
         ProtoBytes(3, ProtoBytes(1, "identity") + ProtoBytes(2, charsmap));
}

}  // namespace lmfusion
