#pragma once

#include <cstdint>

#include "kernels/linear/float32_loops.h"

namespace lmfusion {
namespace LMFUSION_SIMD {

// Weights of four bits in products of bytes, which all kernels do alike, to the bit.

// The words of a block in two rows each, four inputs a word: calls use(row, words) for eight rows.
template <class Use>
inline void ForNibbleRows(const Q4Block& block, Use use) {
  for (int row = 0; row < Q4Block::kRows; ++row) {
    const I words = LoadWords(block.words + row * kWordRowBytes);
    use(2 * row, LowNibbles(words));
    use(2 * row + 1, HighNibbles(words));
  }
}

inline void UnpackNibbles(const Q4Block& block, uint8_t* out) {
  ForNibbleRows(block, [out](int row, I words) { StoreWords(out + row * kWordRowBytes, words); });
}

// What a block's products with a token add: that has a scale, and a sum of bytes times it.
inline F AddNibbleProducts(F products, F weight_scale, F weight_minimum, F scale, F scaled_sum,
                           F total) {
  total = MulAdd(Mul(products, scale), weight_scale, total);
  return MulAdd(weight_minimum, scaled_sum, total);
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
