#pragma once

#include <ATen/core/Tensor.h>

namespace lmfusion {

// What stands between the linear layers of many models, one operator each instead of five or more.
// float32 on the CPU. Registered as lmfusion::rms_normalize, rotate_half and silu_mul.

// x / sqrt(mean(x^2) + epsilon) over the last dimension.
at::Tensor RmsNormalize(const at::Tensor& x, double epsilon);

// The rotary embedding of Su et al. 2021, halves rotated against each other (as Llama's):
// x * cos + (-x2, x1) * sin with x = (x1, x2) in the last dimension. x [1, heads, T, dim]; cos, sin
// [1, 1, T, dim]. The result has the memory layout [1, T, heads, dim].
at::Tensor RotateHalf(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

// silu(gate) * up, silu(z) = z / (1 + exp(-z)); rows may be strided.
at::Tensor SiluMul(const at::Tensor& gate, const at::Tensor& up);

}  // namespace lmfusion
