#pragma once

#include <cstdint>

#include "kernels/linear/weight_matrix.h"

namespace lmfusion {

// Weights of a device in 4 bits, [rows, columns] cut into blocks of 32 columns, one behind the
// other: values uint8 [16], two a byte (the first in the low bits), scales float16 [2], a scale and
// a minimum; weight = scale * value + minimum. These are the weights of Q4_0 and Q4_1 blocks to the
// bit.
struct NarrowBlocks {
  uint8_t* values = nullptr;
  uint16_t* scales = nullptr;
};

// The weights of `count` blocks of a file: out [count * 32].
void WidenBlocks(const uint8_t* blocks, WeightType type, int64_t count, float* out);

// `count` blocks of a file, Q4_0 or Q4_1.
void RepackBlocks(const uint8_t* blocks, WeightType type, int64_t count, const NarrowBlocks& out);

// The nearest blocks to `weights` [count * 32], which must be finite, from number `first` on.
void QuantizeBlocks(const float* weights, int64_t count, int64_t first, const NarrowBlocks& out);

// 8 bits with a scale a row, as the CPU has them (WriteInt8): weights [rows, columns], which must
// be finite, are about scales [rows] * values [rows, columns].
void QuantizeRows(const float* weights, int64_t rows, int64_t columns, int8_t* values,
                  float* scales);

}  // namespace lmfusion
