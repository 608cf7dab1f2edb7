#pragma once

#include <cstdint>

#include "kernels/device/host_device.h"

namespace lmfusion {

// Note [Panels]
// A packed weight is a row of panels. A panel holds 16 outputs side by side (zeros fill the last
// one), so that one vector of 16 lanes holds the weights of 16 outputs for the same input, and
// sums are kept one lane an output. Inputs come in blocks of 32 (zeros fill the last one). All
// instruction sets read the same bytes; a word is 32 bits, and words stand [.][16 outputs]:
//   kFloat32   block: 32 rows of words, a float each
//   kBFloat16  block: 16 rows of words, inputs 2j (low half) and 2j + 1 (high half)
//   kQ4        block: 16 float16 scales d, 16 float16 minima m, 4 rows of words; byte i of word j
//              holds input 8j + i in its low and input 8j + 4 + i in its high four bits;
//              weight = d * q + m
//   kQ8        block: 8 rows of words; byte i of word j holds input 4j + i, plus 128. The scales
//              d, 16 float16 a block, follow after the panel's last block; weight = d * (q - 128)
//   kInt8      block: as kQ8; 16 float scales d, one an output, follow after the last block
enum class PanelFormat : int { kFloat32, kBFloat16, kQ4, kQ8, kInt8 };
constexpr int kPanelFormats = 5;
const char* Name(PanelFormat format);  // "float32", "bfloat16", "q4", "q8" or "int8"

constexpr int64_t kPanelOutputs = 16;
constexpr int64_t kBlockInputs = 32;
constexpr int64_t kWordRowBytes = 4 * kPanelOutputs;

LMFUSION_ALWAYS_INLINE constexpr int64_t BlocksOf(int64_t inputs) {
  return (inputs + kBlockInputs - 1) / kBlockInputs;
}
LMFUSION_ALWAYS_INLINE constexpr int64_t PanelsOf(int64_t outputs) {
  return (outputs + kPanelOutputs - 1) / kPanelOutputs;
}

LMFUSION_ALWAYS_INLINE constexpr int64_t BlockBytes(PanelFormat format) {
  switch (format) {
    case PanelFormat::kFloat32: return 32 * kWordRowBytes;
    case PanelFormat::kBFloat16: return 16 * kWordRowBytes;
    case PanelFormat::kQ4: return 5 * kWordRowBytes;
    case PanelFormat::kQ8:
    case PanelFormat::kInt8: return 8 * kWordRowBytes;
  }
  return 0;
}

LMFUSION_ALWAYS_INLINE constexpr int64_t PanelBytes(PanelFormat format, int64_t blocks) {
  const int64_t scales = format == PanelFormat::kQ8     ? (blocks + 1) / 2 * kWordRowBytes
                         : format == PanelFormat::kInt8 ? kWordRowBytes
                                                        : 0;
  return blocks * BlockBytes(format) + scales;
}

}  // namespace lmfusion
