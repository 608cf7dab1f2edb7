#pragma once

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

}  // namespace lmfusion
