#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <optional>
#include <string>
#include <vector>

#include "kernels/linear/packed_weight.h"
#include "ops/pack_weights.h"

namespace lmfusion {

// A packed weight (Note [Packed matrices]) as an attribute of a TorchScript module:
// lmfusion::PackedMatrix(Tensor weight, Tensor? bias, str compute), with the operators
//   lmfusion::linear.packed(Tensor x, PackedMatrix w) -> Tensor
//   lmfusion::linear_add.packed(Tensor x, PackedMatrix w, Tensor residual, float scale) -> Tensor
//   lmfusion::normalized_linear(Tensor x, Tensor? norm_weight, Tensor? norm_bias, float epsilon,
//       bool centered, PackedMatrix w) -> Tensor
//   lmfusion::feed_forward(..), see feed_forward.cpp
//   lmfusion::rows(PackedMatrix w, Tensor ids) -> Tensor
// Immutable; all methods may be called from many threads. It belongs to this process: modules that
// hold one cannot be saved.
class PackedMatrix : public torch::CustomClassHolder {
 public:
  // See PackWeights.
  static c10::intrusive_ptr<PackedMatrix> Pack(const std::vector<WeightRows>& stacked,
                                               const std::optional<at::Tensor>& bias,
                                               Compute compute);

  const PackedWeight& weight() const { return weight_; }
  int64_t out_features() const { return weight_.out; }
  int64_t in_features() const { return weight_.in; }
  Compute compute() const { return weight_.compute; }
  int64_t bytes() const { return weight_.bytes(); }
  // How the weight is held: "float32", "bfloat16", "q4", "q8" or "int8".
  std::string format() const { return Name(weight_.format); }

  // x [..., in] float32 -> [..., out] float32: x, normalised where there is a norm, times the
  // transposed weight, plus the bias.
  at::Tensor Multiply(const at::Tensor& x, const RowNorm* norm = nullptr) const;
  // The same times `scale`, and `residual` [..., out] added, as other operators would (broadcast
  // too).
  at::Tensor MultiplyAdd(const at::Tensor& x, const at::Tensor& residual, float scale,
                         const RowNorm* norm = nullptr) const;

  // Rows of the weight (without bias): ids [...] int64 -> [..., in] float32.
  at::Tensor Rows(const at::Tensor& ids) const;
  // The whole weight: [out, in] float32.
  at::Tensor Dequantized() const;

 private:
  explicit PackedMatrix(PackedWeight weight) : weight_(std::move(weight)) {}

  const PackedWeight weight_;
};

// Whether `residual` can be added to y row by row, without being broadcast.
bool IsAddend(const at::Tensor& residual, const at::Tensor& y);

}  // namespace lmfusion
