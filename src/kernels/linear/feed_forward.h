#pragma once

#include <cstdint>

#include "kernels/linear/packed_weight.h"
#include "kernels/rows/rows.h"

namespace lmfusion {

// The feed-forward layer of a transformer (Vaswani et al. 2017), also gated (Shazeer 2020).
struct FeedForwardLayer {
  const PackedWeight& first;  // [inner, hidden]; gated: [2 * inner, hidden], gates before ups
  const PackedWeight& last;   // [out, inner]
  Activation activation;
  bool gated;
  const RowNorm* norm = nullptr;  // of its inputs; null: none
};

// Whether FeedForward knows these matrices: `inner` must be whole blocks.
bool FitFeedForward(const PackedWeight& first, const PackedWeight& last, bool gated);

// y [rows, out] = last . activation(first . x), where gated last . (activation(gates . x) * ups .
// x), with biases; where there is a `residual` [rows, out], y = residual + scale * that. All
// contiguous. The same bits as the products and the gate one after the other.
void FeedForward(const FeedForwardLayer& layer, const float* x, int64_t rows, float* y,
                 const float* residual = nullptr, float scale = 1);

}  // namespace lmfusion
