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

// silu(z) = z / (1 + exp(-z)); gelu(z) = z * Phi(z), Phi the normal distribution, and its form by
// tanh, z / 2 * (1 + tanh(sqrt(2 / pi) * (z + 0.044715 z^3))) (both Hendrycks & Gimpel 2016; GPT-2
// and Gemma have the second); relu(z) = max(z, 0). clamped_silu is gpt-oss's gate: of z = min(gate,
// 7) and u = clamp(up, -7, 7), z / (1 + exp(-1.702 z)) * (u + 1); without `up` it is not defined.
enum class Activation { kSilu, kGelu, kGeluTanh, kRelu, kClampedSilu };
constexpr int kActivations = 5;

// Rows of n numbers, each activation(gate) * up, or activation(gate) where `up` is null (and the
// activation no gate alone).
struct GateRows {
  const float* gate;  // [rows][gate_stride]
  int64_t gate_stride;
  const float* up;  // [rows][up_stride]
  int64_t up_stride;
  int64_t rows, n;
  float* y;  // [rows][y_stride]; may be `gate`
  int64_t y_stride;
};

// y [n] from x [n].
struct RowKernels {
  void (*add)(const float* x, int64_t n, float* y);                      // y += x
  void (*add_scaled)(const float* x, float scale, int64_t n, float* y);  // y = x + scale * y
  void (*normalize)(const float* x, const RowNorm& norm, int64_t n, float* y);
  void (*rotate)(const float* x, const HeadRotation& rotation, int64_t dim, float* y);
  void (*gate[kActivations])(const GateRows& rows);
};
LMFUSION_KERNELS(RowKernels)

}  // namespace lmfusion
