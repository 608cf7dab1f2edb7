#pragma once

#include <cstdint>

#include "kernels/simd/instruction_set.h"

namespace lmfusion {

// What stands between the linear layers of a model, one row (the last dimension of an activation)
// at a time. float32.

// x / sqrt(mean(x^2) + epsilon) (Zhang & Sennrich 2019), times a weight, plus a bias.
struct RowNorm {
  const float* weight = nullptr;  // [n]; null: 1
  const float* bias = nullptr;    // [n]; null: 0
  float epsilon = 0;
  bool centered = false;  // the mean is subtracted before: LayerNorm (Ba et al. 2016)
};

// The rotary embedding of Su et al. 2021: x * cos + (-x2, x1) * sin, with x = (x1, x2) the halves
// of a head (as Llama's), or its even and odd elements (as Cohere's): `interleaved`.
struct HeadRotation {
  const float* cos = nullptr;  // [n]
  const float* sin = nullptr;
  int64_t n = 0;  // even, at most `dim`: elements behind the first n stay as they are
  bool interleaved = false;
};

// y [n] from x [n]. gelu(z) = z / 2 * (1 + tanh(sqrt(2 / pi) * (z + 0.044715 z^3))), the form of
// Hendrycks & Gimpel 2016 that GPT-2 and Gemma have; silu(z) = z / (1 + exp(-z)).
struct RowKernels {
  void (*add)(const float* x, int64_t n, float* y);  // y += x
  void (*normalize)(const float* x, const RowNorm& norm, int64_t n, float* y);
  void (*rotate)(const float* x, const HeadRotation& rotation, int64_t dim, float* y);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);  // silu(gate) * up
  void (*gelu_tanh_mul)(const float* gate, const float* up, int64_t n, float* y);
  void (*gelu_tanh)(const float* x, int64_t n, float* y);
};
LMFUSION_KERNELS(RowKernels)

}  // namespace lmfusion
