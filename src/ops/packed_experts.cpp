#include "ops/packed_experts.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <utility>

#include "ops/definitions/definitions.h"
#include "ops/gate.h"

namespace lmfusion {
namespace {

std::vector<c10::intrusive_ptr<PackedMatrix>> PackedOneByOne(const WeightRows& stacked,
                                                             const std::optional<at::Tensor>& bias,
                                                             int64_t count, Compute compute) {
  const int64_t rows = stacked.data.size(0) / count;
  std::vector<c10::intrusive_ptr<PackedMatrix>> matrices;
  for (int64_t begin = 0; begin < count * rows; begin += rows) {
    std::optional<at::Tensor> part;
    if (bias) part = bias->narrow(0, begin, rows);
    matrices.push_back(
        PackedMatrix::Pack({{stacked.data.narrow(0, begin, rows), stacked.type}}, part, compute));
  }
  return matrices;
}

// What one expert is to compute.
struct Share {
  std::vector<int64_t> tokens;
  std::vector<float> weights;
};

std::vector<Share> SharesOf(const ChosenExperts& chosen, int64_t count) {
  std::vector<Share> shares(count);
  const at::Tensor numbers = chosen.numbers.contiguous(), weights = chosen.weights.contiguous();
  const int64_t* expert = numbers.const_data_ptr<int64_t>();
  const float* weight = weights.const_data_ptr<float>();
  const int64_t top_k = numbers.size(1);
  for (int64_t i = 0; i < numbers.numel(); ++i) {
    shares[expert[i]].tokens.push_back(i / top_k);
    shares[expert[i]].weights.push_back(weight[i]);
  }
  return shares;
}

at::Tensor ExpertsOp(const at::Tensor& x, const at::Tensor& logits,
                     const c10::intrusive_ptr<PackedExperts>& experts,
                     const std::optional<at::Tensor>& residual, c10::string_view activation,
                     int64_t /*count*/, int64_t top_k, bool normalized) {
  return experts->Apply(x, logits, residual, activation, top_k, normalized);
}

}  // namespace

PackedExperts::PackedExperts(const WeightRows& gate_up,
                             const std::optional<at::Tensor>& gate_up_bias, const WeightRows& down,
                             const std::optional<at::Tensor>& down_bias, int64_t count,
                             Compute compute)
    : gate_up_(PackedOneByOne(gate_up, gate_up_bias, count, compute)),
      down_(PackedOneByOne(down, down_bias, count, compute)) {}

int64_t PackedExperts::bytes() const {
  int64_t sum = 0;
  for (const Matrices* matrices : {&gate_up_, &down_}) {
    for (const auto& matrix : *matrices) sum += matrix->bytes();
  }
  return sum;
}

at::Tensor PackedExperts::Apply(const at::Tensor& x, const at::Tensor& logits,
                                const std::optional<at::Tensor>& residual,
                                c10::string_view activation, int64_t top_k, bool normalized) const {
  TORCH_CHECK(logits.size(-1) == static_cast<int64_t>(gate_up_.size()), "experts: logits ",
              logits.sizes(), " for ", gate_up_.size(), " experts");
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  at::Tensor sum = residual ? residual->reshape(rows.sizes()).clone(at::MemoryFormat::Contiguous)
                            : at::zeros_like(rows, at::MemoryFormat::Contiguous);
  const std::vector<Share> shares =
      SharesOf(ExpertsOfTokens(logits, top_k, normalized), logits.size(-1));
  for (size_t expert = 0; expert < shares.size(); ++expert) {
    const Share& share = shares[expert];
    if (share.tokens.empty()) continue;
    const auto count = static_cast<int64_t>(share.tokens.size());
    const at::Tensor tokens =
        at::from_blob(const_cast<int64_t*>(share.tokens.data()), {count}, at::kLong);
    const at::Tensor weights =
        at::from_blob(const_cast<float*>(share.weights.data()), {count, 1}, at::kFloat);
    const at::Tensor both = gate_up_[expert]->Multiply(rows.index_select(0, tokens));
    const int64_t inner = both.size(1) / 2;
    const at::Tensor gated = GateOnCpu(both, both, activation, 0, inner, inner);
    sum.index_add_(0, tokens, down_[expert]->Multiply(gated).mul_(weights));
  }
  return sum.view(x.sizes());
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.class_<PackedExperts>("PackedExperts");
  m.def(
      "experts.packed(Tensor x, Tensor logits, __torch__.torch.classes.lmfusion.PackedExperts w, "
      "Tensor? residual, str activation, int count, int top_k, bool normalized) -> Tensor",
      &ExpertsOp);
}

}  // namespace lmfusion
