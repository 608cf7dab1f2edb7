#pragma once

#include <string>
#include <string_view>

namespace lmfusion {

// A line that any terminal and any reader of UTF-8 can show, whatever bytes a file holds: what is
// no printable ASCII is written as \x and its hexadecimal digits.
inline std::string Printable(std::string_view text) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string line;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      line += c;
    } else {
      line += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return line;
}

}  // namespace lmfusion
