#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "kernels/rows/rows.h"

namespace lmfusion {

// A norm of rows of `width`, with the tensors that its numbers lie in. Refuses, in the name of the
// operator `name`, a weight or a bias that is not float32 [width] on the CPU.
struct NormWeights {
  NormWeights(const char* name, const std::optional<at::Tensor>& weight,
              const std::optional<at::Tensor>& bias, double epsilon, bool centered, int64_t width);

  at::Tensor weights, biases;
  RowNorm of_rows;
};

}  // namespace lmfusion
