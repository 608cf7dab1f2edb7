#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace lmfusion {

// `good` with edits: three bytes of `data` each, a place and what stands there. Keeps a format's
// structure while libFuzzer tries its fields.
inline std::string Edited(std::string good, const uint8_t* data, size_t size) {
  for (size_t i = 0; i + 2 < size; i += 3) {
    good[(data[i] << 8 | data[i + 1]) % good.size()] = static_cast<char>(data[i + 2]);
  }
  return good;
}

}  // namespace lmfusion
