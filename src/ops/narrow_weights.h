#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/linear/compute.h"
#include "kernels/output/output_kernel.h"
#include "ops/pack_weights.h"

namespace lmfusion {

// A matrix of weights in a narrow type. Products with it are summed and returned in float32; only
// what is multiplied is rounded.
//   bfloat16, float16   values [rows, columns] of that type
//   8 bits              values [rows, columns] int8, scales [rows] float32; weight = scale * value,
//                       where products are multiplied with the scale
//   4 bits              values [rows, columns / 2] uint8, scales [rows, columns / 32, 2] float16;
//   see
//                       kernels/linear/narrow_blocks.h
// Integers become bfloat16 before they are multiplied.
struct NarrowWeight {
  at::Tensor values;
  std::optional<at::Tensor> scales;
  int64_t bytes() const;
};

// The weights that `compute` means, those of the CPU too, but that kInt4 makes bfloat16 of a matrix
// without whole blocks of 32 columns. Goes through the rows in slices: beside the result it takes a
// few megabytes, whatever the size. weight: on the CPU; what has the type already is given back as
// it is. Throws std::invalid_argument (8 or 4 bits of a weight that is not finite).
NarrowWeight Narrowed(const WeightRows& weight, Compute compute);

// The matrix in the type it is multiplied in; of 8 bits the values, without their scales.
at::Tensor Widened(const at::Tensor& values, const std::optional<at::Tensor>& scales);

// x [..., columns] -> x . weight^T + bias, [..., rows] float32.
at::Tensor NarrowLinear(const at::Tensor& x, const at::Tensor& values,
                        const std::optional<at::Tensor>& scales,
                        const std::optional<at::Tensor>& bias);

// residual + scale * NarrowLinear(...)
at::Tensor NarrowLinearAdd(const at::Tensor& x, const at::Tensor& values,
                           const std::optional<at::Tensor>& scales,
                           const std::optional<at::Tensor>& bias, const at::Tensor& residual,
                           double scale);

// What the dequantizing kernel reads and writes: result [rows, columns] bfloat16.
QuantizedMatrix MatrixOf(const at::Tensor& values, const at::Tensor& scales,
                         const at::Tensor& result);

// a [N, K] . b [M, K]^T in float32, where a is rounded to b's type first.
at::Tensor ProductsInFloat32(const at::Tensor& a, const at::Tensor& b);

}  // namespace lmfusion
