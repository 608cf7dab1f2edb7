#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "kernels/linear/packed_weight.h"

namespace lmfusion {

// The rows of a weight as a file has them: see WeightType.
struct WeightRows {
  at::Tensor data;
  WeightType type = WeightType::kFloat;
  WeightReader read = nullptr;  // where it is not in memory yet: `data` is contiguous, its content
                                // is not there
};

// Whether panels made for `compute` hold these weights to the bit.
bool KeepsWeights(const WeightRows& rows, Compute compute);

// `stacked`: matrices of equal width, one below the other; floats may have any strides. bias: [out]
// of the whole stack. Throws std::invalid_argument.
PackedWeight PackWeights(const std::vector<WeightRows>& stacked,
                         const std::optional<at::Tensor>& bias, Compute compute);

}  // namespace lmfusion
