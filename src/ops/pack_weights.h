#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/linear/panel_format.h"
#include "ops/packed_linear.h"

namespace lmfusion {

struct PackedPanels {
  PanelFormat format;
  int64_t out, in;
  at::Tensor panels;  // uint8 [PanelsOf(out) * PanelBytes(format, BlocksOf(in))]
};

// Bytes of 32 weights of one row; 0 for floats.
int64_t BlockBytes(WeightType type);

// The weights [out, in] float32 that the panels hold.
at::Tensor WidenPanels(const PackedPanels& packed);

// Whether panels made for `compute` hold these weights to the bit.
bool KeepsWeights(const WeightRows& rows, Compute compute);

// Writes the stacked weights as panels: blocks as they are where KeepsWeights, other weights as
// `compute` wants them. float32 and bfloat16 rows may have any strides. Throws
// std::invalid_argument.
PackedPanels PackWeights(const std::vector<WeightRows>& stacked, Compute compute);

}  // namespace lmfusion
