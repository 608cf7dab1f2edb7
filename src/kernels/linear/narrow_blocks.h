#pragma once

#include <cstdint>

#include "kernels/linear/weight_matrix.h"

namespace lmfusion {

// Weights of a device, [rows, columns] cut into blocks of 32 columns, one behind the other:
//   8 bits  values int8 [32], scales float16 [1]; weight = scale * value
//   4 bits  values uint8 [16], two a byte (the first in the low bits), scales float16 [2], a scale
//           and a minimum; weight = scale * value + minimum
// These are the weights of Q8_0, Q4_0 and Q4_1 blocks to the bit.
struct NarrowBlocks {
  uint8_t* values = nullptr;
  uint16_t* scales = nullptr;
  bool four_bits = false;
};

// The weights of `count` blocks of a file: out [count * 32].
void WidenBlocks(const uint8_t* blocks, WeightType type, int64_t count, float* out);

// `count` blocks of a file as blocks from number `first` on. Q8_0 becomes 8 bits, others 4.
void RepackBlocks(const uint8_t* blocks, WeightType type, int64_t count, int64_t first,
                  const NarrowBlocks& out);

// The nearest blocks to `weights` [count * 32], which must be finite.
void QuantizeBlocks(const float* weights, int64_t count, int64_t first, const NarrowBlocks& out);

}  // namespace lmfusion
