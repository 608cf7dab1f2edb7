#include "ops/packed_experts.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <string>

#include "kernels/experts/routing.h"
#include "ops/float_rows.h"
#include "ops/gate.h"
#include "ops/pooled_floats.h"

namespace lmfusion {
namespace {

// The rows of expert i of `count`, whose matrices lie one below the other.
PackedWeight PackedPart(const WeightRows& stacked, const std::optional<at::Tensor>& bias, int64_t i,
                        int64_t count, Compute compute) {
  const int64_t rows = stacked.data.size(0) / count;
  std::optional<at::Tensor> part;
  if (bias) part = bias->narrow(0, i * rows, rows);
  return PackWeights({{stacked.data.narrow(0, i * rows, rows), stacked.type, stacked.read}}, part,
                     compute);
}

at::Tensor ExpertsOp(const at::Tensor& x, const at::Tensor& logits,
                     const c10::intrusive_ptr<PackedExperts>& experts,
                     const std::optional<at::Tensor>& residual, c10::string_view activation,
                     int64_t /*count*/, int64_t top_k, bool normalized) {
  return experts->Apply(x, logits, residual, activation, top_k, normalized);
}

// What Python makes, for tests and benchmarks.
c10::intrusive_ptr<PackedExperts> PackedFloatExperts(const at::Tensor& gate_up,
                                                     const std::optional<at::Tensor>& gate_up_bias,
                                                     const at::Tensor& down,
                                                     const std::optional<at::Tensor>& down_bias,
                                                     int64_t count, const std::string& compute) {
  return c10::make_intrusive<PackedExperts>(WeightRows{gate_up}, gate_up_bias, WeightRows{down},
                                            down_bias, count, ComputeByName(compute));
}

}  // namespace

PackedExperts::PackedExperts(const WeightRows& gate_up,
                             const std::optional<at::Tensor>& gate_up_bias, const WeightRows& down,
                             const std::optional<at::Tensor>& down_bias, int64_t count,
                             Compute compute) {
  for (int64_t i = 0; i < count; ++i) {
    experts_.push_back({PackedPart(gate_up, gate_up_bias, i, count, compute),
                        PackedPart(down, down_bias, i, count, compute)});
    const GatedExpert& expert = experts_.back();
    TORCH_CHECK(expert.gate_up.out == 2 * expert.down.in && expert.gate_up.in == expert.down.out,
                "experts: matrices [", expert.gate_up.out, ", ", expert.gate_up.in, "] and [",
                expert.down.out, ", ", expert.down.in, "] of an expert do not go together");
  }
}

int64_t PackedExperts::bytes() const {
  int64_t sum = 0;
  for (const GatedExpert& expert : experts_) sum += expert.gate_up.bytes() + expert.down.bytes();
  return sum;
}

at::Tensor PackedExperts::Apply(const at::Tensor& x, const at::Tensor& logits,
                                const std::optional<at::Tensor>& residual, c10::string_view name,
                                int64_t top_k, bool normalized) const {
  const std::optional<Activation> activation = ActivationNamed(name);
  TORCH_CHECK_VALUE(activation, "experts: no activation \"", name, "\"");
  CheckFloat("experts", x);
  CheckFloat("experts", logits);
  const at::Tensor rows = x.reshape({-1, x.size(-1)}).contiguous(), scores = logits.contiguous();
  const auto count = static_cast<int64_t>(experts_.size());
  const int64_t hidden = experts_.at(0).gate_up.in, tokens = rows.size(0);
  TORCH_CHECK(
      rows.size(1) == hidden && logits.numel() == tokens * count && logits.size(-1) == count,
      "experts: x [.., ", hidden, "] and logits [.., ", count, "] of as many rows expected, got ",
      x.sizes(), " and ", logits.sizes());
  TORCH_CHECK(top_k > 0 && top_k <= count, "experts: ", top_k, " of ", count, " for each token");
  std::vector<int64_t> numbers(tokens * top_k);
  std::vector<float> weights(tokens * top_k);
  ChooseExperts(scores.const_data_ptr<float>(), tokens, count, top_k, normalized, numbers.data(),
                weights.data());
  at::Tensor added;
  if (residual) {
    CheckFloat("experts", *residual);
    added = residual->reshape(rows.sizes()).contiguous();
  }
  at::Tensor sum = EmptyFloats(rows.sizes());
  SumExperts(experts_, *activation, {numbers.data(), weights.data(), tokens, top_k},
             rows.const_data_ptr<float>(), residual ? added.const_data_ptr<float>() : nullptr,
             sum.data_ptr<float>());
  return sum.view(x.sizes());
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.class_<PackedExperts>("PackedExperts").def(torch::init(&PackedFloatExperts));
  m.def(
      "experts.packed(Tensor x, Tensor logits, __torch__.torch.classes.lmfusion.PackedExperts w, "
      "Tensor? residual, str activation, int count, int top_k, bool normalized) -> Tensor",
      &ExpertsOp);
}

}  // namespace lmfusion
