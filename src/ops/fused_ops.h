#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace lmfusion {

// What stands between the linear layers of many models, one operator each instead of five or more.
// float32 on the CPU. Registered as lmfusion::normalize, rotate, gelu_tanh, silu_mul and
// gelu_tanh_mul.

// A norm over the last dimension: x / sqrt(mean(x^2) + epsilon) (Zhang & Sennrich 2019).
struct Norm {
  std::optional<at::Tensor> weight;  // [size of that dimension], multiplies; none: 1
  std::optional<at::Tensor> bias;    // the same size, is added; none: 0
  double epsilon = 0;
  bool centered = false;  // the mean is subtracted before: LayerNorm (Ba et al. 2016)
};
// `residual`, of the shape of x or broadcast to it, is added to the result.
at::Tensor Normalize(const at::Tensor& x, const Norm& norm,
                     const std::optional<at::Tensor>& residual = std::nullopt);

// The rotary embedding of Su et al. 2021: x * cos + (-x2, x1) * sin, with x = (x1, x2) the halves
// of a head (as Llama's), or its even and odd elements (as Cohere's): `interleaved`.
// x [1, heads, T, dim]; cos, sin [1, 1, T, n], n <= dim: elements behind the first n stay as they
// are. The result has the memory layout [1, T, heads, dim].
at::Tensor Rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                  bool interleaved);

// gelu(z) = z / 2 * (1 + tanh(sqrt(2 / pi) * (z + 0.044715 z^3))), the form of Hendrycks & Gimpel
// 2016 that GPT-2 and Gemma have.
at::Tensor GeluTanh(const at::Tensor& x);

// Columns of the last dimension: the whole of it, or [begin, begin + width).
struct GateColumns {
  int64_t gate_begin = 0, up_begin = 0;
  int64_t width = -1;  // -1: the whole of both tensors
};
// silu(gate) * up, silu(z) = z / (1 + exp(-z)); rows may be strided.
at::Tensor SiluMul(const at::Tensor& gate, const at::Tensor& up, const GateColumns& columns = {});
// gelu(gate) * up; rows may be strided.
at::Tensor GeluTanhMul(const at::Tensor& gate, const at::Tensor& up,
                       const GateColumns& columns = {});

// One row of the first: y [n] from x [n]; weight and bias null or [n].
struct RowNorm {
  const float* weight = nullptr;
  const float* bias = nullptr;
  float epsilon = 0;
  bool centered = false;
};
void NormalizeRow(const float* x, const RowNorm& norm, int64_t n, float* y);
// One head of the second: y [dim] from x [dim]; cos, sin [n].
struct HeadRotation {
  const float* cos = nullptr;
  const float* sin = nullptr;
  int64_t n = 0;  // even
  bool interleaved = false;
};
void RotateHead(const float* x, const HeadRotation& rotation, int64_t dim, float* y);

}  // namespace lmfusion
