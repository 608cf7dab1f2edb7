#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace lmfusion {

// What stands between the linear layers of many models, one operator each instead of five or more.
// float32 on the CPU. Registered as lmfusion::rms_normalize, rotate_half, silu_mul, gelu_tanh_mul.

// x / sqrt(mean(x^2) + epsilon) over the last dimension, times weight [size of it].
at::Tensor RmsNormalize(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                        double epsilon);

// The rotary embedding of Su et al. 2021, halves rotated against each other (as Llama's):
// x * cos + (-x2, x1) * sin with x = (x1, x2) in the last dimension. x [1, heads, T, dim]; cos, sin
// [1, 1, T, dim]. The result has the memory layout [1, T, heads, dim].
at::Tensor RotateHalf(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

// silu(gate) * up, silu(z) = z / (1 + exp(-z)); rows may be strided.
at::Tensor SiluMul(const at::Tensor& gate, const at::Tensor& up);

// gelu(gate) * up, gelu(z) = z / 2 * (1 + tanh(sqrt(2 / pi) * (z + 0.044715 z^3))), the form of
// Hendrycks & Gimpel 2016 that Gemma has; rows may be strided.
at::Tensor GeluTanhMul(const at::Tensor& gate, const at::Tensor& up);

// One row of the first two: y [n] from x [n] (weight: null or [n]), y [2 * half] from x.
void NormalizeRow(const float* x, const float* weight, int64_t n, float epsilon, float* y);
void RotateRow(const float* x, const float* cos, const float* sin, int64_t half, float* y);

}  // namespace lmfusion
