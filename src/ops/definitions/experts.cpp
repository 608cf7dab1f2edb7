#include <ATen/ATen.h>
#include <torch/library.h>

#include "ops/definitions/definitions.h"

namespace lmfusion {

ChosenExperts ExpertsOfTokens(const at::Tensor& logits, int64_t top_k, bool normalized) {
  TORCH_CHECK(top_k > 0 && top_k <= logits.size(-1), "experts: ", top_k, " of ", logits.size(-1),
              " for each token");
  const at::Tensor rows = logits.reshape({-1, logits.size(-1)});
  auto [chosen, numbers] = rows.topk(top_k, -1);
  const at::Tensor weights =
      normalized ? chosen.softmax(-1) : (chosen - rows.logsumexp(-1, /*keepdim=*/true)).exp();
  return {std::move(numbers), weights};
}

at::Tensor SumOfExperts(const at::Tensor& x, const at::Tensor& logits,
                        const std::optional<at::Tensor>& residual, c10::string_view activation,
                        int64_t count, int64_t top_k, bool normalized, const ExpertProduct& gate_up,
                        const ExpertProduct& down) {
  TORCH_CHECK(logits.size(-1) == count, "experts: logits ", logits.sizes(), " for ", count,
              " experts");
  const ChosenExperts chosen = ExpertsOfTokens(logits, top_k, normalized);
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  const at::Tensor weights = at::zeros({rows.size(0), count}, chosen.weights.options())
                                 .scatter_(1, chosen.numbers, chosen.weights);
  at::Tensor sum = residual ? residual->reshape(rows.sizes()) : at::zeros_like(rows);
  for (int64_t expert = 0; expert < count; ++expert) {
    const at::Tensor both = gate_up(expert, rows);
    const int64_t inner = both.size(-1) / 2;
    const at::Tensor gated = GateByDefinition(both, both, activation, 0, inner, inner);
    sum = sum + down(expert, gated) * weights.narrow(1, expert, 1);
  }
  return sum.view(x.sizes());
}

namespace {

// The product with one expert's rows of a matrix [experts * rows, columns].
ExpertProduct ProductWith(const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                          int64_t count) {
  TORCH_CHECK(weight.dim() == 2 && weight.size(0) % count == 0, "experts: weight ", weight.sizes(),
              " is not that of ", count, " experts");
  const int64_t rows = weight.size(0) / count;
  return [=](int64_t expert, const at::Tensor& x) {
    std::optional<at::Tensor> part;
    if (bias) part = bias->narrow(0, expert * rows, rows);
    return at::linear(x, weight.narrow(0, expert * rows, rows), part);
  };
}

at::Tensor Experts(const at::Tensor& x, const at::Tensor& logits, const at::Tensor& gate_up,
                   const std::optional<at::Tensor>& gate_up_bias, const at::Tensor& down,
                   const std::optional<at::Tensor>& down_bias,
                   const std::optional<at::Tensor>& residual, c10::string_view activation,
                   int64_t count, int64_t top_k, bool normalized) {
  return SumOfExperts(x, logits, residual, activation, count, top_k, normalized,
                      ProductWith(gate_up, gate_up_bias, count),
                      ProductWith(down, down_bias, count));
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  // residual + sum over the top_k experts e of a token with the largest logits of
  //   weight_e * down_e(activation(gate_e(x)) * up_e(x)),
  // where weight is the softmax of the logits, of the chosen ones alone if `normalized`.
  // x [.., hidden], logits [.., count]; gate_up [count * 2 * inner, hidden], of each expert
  // first the gate; down [count * hidden, inner]; biases of as many numbers as rows.
  m.def(
      "experts(Tensor x, Tensor logits, Tensor gate_up, Tensor? gate_up_bias, Tensor down, "
      "Tensor? down_bias, Tensor? residual, str activation, int count, int top_k, "
      "bool normalized) -> Tensor");
}

// Every expert is applied to every token, so that no device has to be asked which are chosen.
TORCH_LIBRARY_IMPL(lmfusion, CompositeExplicitAutograd, m) { m.impl("experts", &Experts); }

}  // namespace
}  // namespace lmfusion
