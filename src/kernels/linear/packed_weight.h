#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/linear/compute.h"
#include "kernels/linear/panel_format.h"
#include "kernels/linear/weight_matrix.h"
#include "kernels/rows/rows.h"

namespace lmfusion {

// The weight (and bias) of a linear layer, packed once for products on this machine's CPU.
// Functions only read it: all of them may be called from many threads.
struct PackedWeight {
  Compute compute = Compute::kFloat32;
  PanelFormat format = PanelFormat::kFloat32;
  int64_t out = 0, in = 0;
  std::shared_ptr<const uint8_t> panels;  // see Note [Panels]
  std::vector<float> bias;                // [out], zeros up to whole panels; or empty

  int64_t panel_bytes() const { return PanelBytes(format, BlocksOf(in)); }
  int64_t bytes() const;  // memory held, bias included
};

// Whether panels made for `compute` hold these weights to the bit.
bool KeepsWeights(WeightType type, bool bfloat16, Compute compute);

// `stacked`: matrices of equal width, one below the other (a single one as a rule), none of them
// empty. Blocks stay as they are where KeepsWeights; other computations, and a stack of several
// types, start from the float32 weights that they stand for. bias: [out] of the whole stack, or
// null. Throws std::invalid_argument where a weight that is not finite would be quantized.
PackedWeight PackWeight(const std::vector<WeightMatrix>& stacked, const float* bias,
                        Compute compute);

// y [rows, out] = x [rows, in] times the transposed weight, plus the bias; where there is a
// `residual` [rows, out], y = residual + scale * that; where there is a `norm`, of x normalised row
// by row. All contiguous.
void Multiply(const PackedWeight& weight, const float* x, int64_t rows, float* y,
              const float* residual = nullptr, float scale = 1, const RowNorm* norm = nullptr);

// Rows of the weight, without bias: out [count, in]. Row numbers must be below `weight.out`.
void ReadRows(const PackedWeight& weight, const int64_t* row_numbers, int64_t count, float* out);

// The whole weight: out [out, in].
void Widen(const PackedWeight& weight, float* out);

}  // namespace lmfusion
