#include <ATen/ATen.h>
#include <torch/library.h>

#include "ops/definitions/definitions.h"

namespace lmfusion {
namespace {

// gpt-oss's gate, both factors clamped: (up + 1) * gate * sigmoid(1.702 gate).
constexpr double kGateLimit = 7, kGateSlope = 1.702;

at::Tensor ClampedSilu(const at::Tensor& gate, const at::Tensor& up) {
  const at::Tensor g = gate.clamp_max(kGateLimit);
  return (up.clamp(-kGateLimit, kGateLimit) + 1) * g * (g * kGateSlope).sigmoid();
}

}  // namespace

at::Tensor ActivatedByDefinition(const at::Tensor& x, c10::string_view activation) {
  if (activation == "silu") return at::silu(x);
  if (activation == "gelu") return at::gelu(x);
  if (activation == "gelu_tanh") return at::gelu(x, "tanh");
  if (activation == "relu") return at::relu(x);
  TORCH_CHECK_VALUE(
      false, "activation \"", activation,
      "\" is none of \"silu\", \"gelu\", \"gelu_tanh\", \"relu\", and \"clamped_silu\" of a gate");
}

at::Tensor GateByDefinition(const at::Tensor& x, const std::optional<at::Tensor>& up,
                            c10::string_view activation, int64_t begin, int64_t up_begin,
                            int64_t width) {
  const at::Tensor gate = x.narrow(-1, begin, width);
  if (!up) return ActivatedByDefinition(gate, activation);
  const at::Tensor other = up->narrow(-1, up_begin, width);
  if (activation == "clamped_silu") return ClampedSilu(gate, other);
  return ActivatedByDefinition(gate, activation) * other;
}

namespace {

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  // activation(x[..., begin : begin + width]) * up[..., up_begin : up_begin + width], or the first
  // factor alone. x and up are products, often the same one.
  m.def("gate(Tensor x, Tensor? up, str activation, int begin, int up_begin, int width) -> Tensor");
}

TORCH_LIBRARY_IMPL(lmfusion, CompositeExplicitAutograd, m) { m.impl("gate", &GateByDefinition); }

}  // namespace
}  // namespace lmfusion
