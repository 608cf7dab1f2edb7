#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "kernels/output/output_kernel.h"
#include "ops/pack_weights.h"

namespace lmfusion {

// A matrix of weights in a narrow type. Products with it are summed and returned in float32; only
// what is multiplied is rounded.
//   bfloat16, float16   values [rows, columns] of that type
//   int8                values [rows, columns] int8, scales [rows, columns / 32] float16;
//                       weight = scale * value
//   int4                values [rows, columns / 2] uint8, two a byte (the first in the low bits),
//                       scales [rows, columns / 32, 2] float16, a scale and a minimum;
//                       weight = scale * value + minimum
// These are the weights of Q8_0, Q4_0 and Q4_1 blocks to the bit. Integers become bfloat16 before
// they are multiplied.
struct NarrowWeight {
  at::Tensor values;
  std::optional<at::Tensor> scales;
  int64_t bytes() const;
};

// compute: "float32", "bfloat16", "float16", "int8" or "int4". For the last two blocks stay as they
// are, and a matrix without whole blocks of 32 columns becomes bfloat16. Goes through the rows in
// slices: beside the result it takes a few megabytes, whatever the size. weight: on the CPU; what
// has the type already is given back as it is. Throws std::invalid_argument (int8 and int4 of a
// weight that is not finite).
NarrowWeight Narrowed(const WeightRows& weight, const std::string& compute);

// The matrix in the type it is multiplied in.
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
