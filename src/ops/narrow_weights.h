#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "ops/output_kernel.h"

namespace lmfusion {

// A matrix of weights in a narrow type. Products with it are summed and returned in float32; only
// what is multiplied is rounded.
//   bfloat16, float16   values [rows, columns] of that type
//   int8                values [rows, columns] int8, one scale a row
//   int4                values [rows, columns / 2] uint8, two a byte (the first in the low bits,
//                       8 added), one scale for kInt4Group columns
// Integers become bfloat16 before they are multiplied.
struct NarrowWeight {
  at::Tensor values;
  std::optional<at::Tensor> scales;  // [rows, columns / group] float32
};

constexpr int64_t kInt4Group = 32;

// compute: "bfloat16", "float16", "int8" or "int4"; what int4 does not fit (an odd number of
// columns) becomes bfloat16. `weight`: [rows, columns] float32.
NarrowWeight Narrowed(const at::Tensor& weight, const std::string& compute);

// The matrix in the type it is multiplied in.
at::Tensor Widened(const at::Tensor& values, const std::optional<at::Tensor>& scales);

// x [..., columns] -> x . weight^T + bias, [..., rows] float32.
at::Tensor NarrowLinear(const at::Tensor& x, const at::Tensor& values,
                        const std::optional<at::Tensor>& scales,
                        const std::optional<at::Tensor>& bias);

// What the dequantizing kernel reads and writes: result [rows, columns] bfloat16.
QuantizedMatrix MatrixOf(const at::Tensor& values, const at::Tensor& scales,
                         const at::Tensor& result);

// a [N, K] . b [M, K]^T in float32, where a is rounded to b's type first.
at::Tensor ProductsInFloat32(const at::Tensor& a, const at::Tensor& b);

}  // namespace lmfusion
