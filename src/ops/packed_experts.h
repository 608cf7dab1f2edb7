#pragma once

#include <torch/custom_class.h>

#include <optional>
#include <vector>

#include "kernels/experts/gated_experts.h"
#include "ops/pack_weights.h"

namespace lmfusion {

// The matrices of a mixture of experts, packed one by one. Immutable. torchbind:
// lmfusion::PackedExperts(Tensor gate_up, Tensor? gate_up_bias, Tensor down, Tensor? down_bias,
//                         int count, str compute), with the operator
//   lmfusion::experts.packed(Tensor x, Tensor logits, PackedExperts w, Tensor? residual,
//                            str activation, int count, int top_k, bool normalized) -> Tensor
// which computes each expert for the tokens that chose it (Note [Grouped products]).
class PackedExperts : public torch::CustomClassHolder {
 public:
  // Matrices [count * rows, columns] and their biases [count * rows], as lmfusion::experts has
  // them.
  PackedExperts(const WeightRows& gate_up, const std::optional<at::Tensor>& gate_up_bias,
                const WeightRows& down, const std::optional<at::Tensor>& down_bias, int64_t count,
                Compute compute);

  int64_t bytes() const;

  at::Tensor Apply(const at::Tensor& x, const at::Tensor& logits,
                   const std::optional<at::Tensor>& residual, c10::string_view activation,
                   int64_t top_k, bool normalized) const;

 private:
  std::vector<GatedExpert> experts_;
};

}  // namespace lmfusion
