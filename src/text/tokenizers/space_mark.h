#pragma once

#include <charconv>
#include <string>
#include <string_view>

namespace lmfusion {

// How vocabularies without byte level write a space: "▁".
inline constexpr char32_t kSpaceMark = 0x2581;
inline constexpr std::string_view kSpaceMarkUtf8 = "\u2581";

// Whether a piece is a byte of white space as byte fallback writes it.
inline bool IsSpaceByte(std::string_view piece) {
  return piece == "<0x20>" || piece == "<0x09>" || piece == "<0x0A>" || piece == "<0x0B>" ||
         piece == "<0x0C>" || piece == "<0x0D>";
}

// The text of a piece without byte level: spaces for marks, the byte of "<0x41>".
inline std::string ReadSpaceMarks(std::string_view piece) {
  if (piece.size() == 6 && piece.substr(0, 3) == "<0x" && piece[5] == '>') {
    int byte = -1;
    const auto end = std::from_chars(piece.data() + 3, piece.data() + 5, byte, 16).ptr;
    if (end == piece.data() + 5) return std::string(1, static_cast<char>(byte));
  }
  std::string text;
  while (!piece.empty()) {
    const bool is_mark = piece.substr(0, kSpaceMarkUtf8.size()) == kSpaceMarkUtf8;
    text += is_mark ? ' ' : piece[0];
    piece.remove_prefix(is_mark ? kSpaceMarkUtf8.size() : 1);
  }
  return text;
}

}  // namespace lmfusion
