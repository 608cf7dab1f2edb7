#include "ops/gate.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>

#include "ops/definitions/definitions.h"
#include "ops/float_rows.h"
#include "ops/pooled_floats.h"

namespace lmfusion {
namespace {

void CheckColumns(const at::Tensor& x, int64_t begin, int64_t width) {
  TORCH_CHECK(begin >= 0 && width >= 0 && begin + width <= x.size(-1), "gate: columns ", begin,
              " to ", begin + width, " do not lie in ", x.sizes());
}

// activation(x[..., begin : begin + width]), where there is `up` times its columns from up_begin
// on; rows may be strided.
at::Tensor Gated(const at::Tensor& x, const std::optional<at::Tensor>& up, Activation activation,
                 int64_t begin, int64_t up_begin, int64_t width) {
  CheckColumns(x, begin, width);
  if (up) CheckColumns(*up, up_begin, width);
  const FloatRows gates(x), ups = !up || up->is_same(x) ? gates : FloatRows(*up);
  at::Tensor out = EmptyRows(x, width);
  const GateRows all{gates.data + begin,    gates.stride, up ? ups.data + up_begin : nullptr,
                     up ? ups.stride : 0,   gates.count,  width,
                     out.data_ptr<float>(), width};
  const auto gate = CurrentRowKernels().gate[static_cast<int>(activation)];
  ForRows(gates.count, width, [&](int64_t begin, int64_t end) {
    GateRows rows = all;
    rows.gate += begin * rows.gate_stride;
    if (rows.up != nullptr) rows.up += begin * rows.up_stride;
    rows.y += begin * width;
    rows.rows = end - begin;
    gate(rows);
  });
  return out;
}

bool IsFloat(const at::Tensor& x) { return x.scalar_type() == at::kFloat && x.dim() > 0; }

// Whether one can be applied to the other row by row; false where one of the two is broadcast.
bool AreRows(const at::Tensor& x, const at::Tensor& up) {
  return x.dim() == up.dim() &&
         x.sizes().slice(0, x.dim() - 1) == up.sizes().slice(0, up.dim() - 1);
}

}  // namespace

std::optional<Activation> ActivationNamed(c10::string_view name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "relu") return Activation::kRelu;
  if (name == "clamped_silu") return Activation::kClampedSilu;
  return std::nullopt;
}

at::Tensor GateOnCpu(const at::Tensor& x, const std::optional<at::Tensor>& up,
                     c10::string_view activation, int64_t begin, int64_t up_begin, int64_t width) {
  if (const auto named = ActivationNamed(activation); named && IsFloat(x)) {
    const bool known = up ? IsFloat(*up) && AreRows(x, *up) : *named != Activation::kClampedSilu;
    if (known) return Gated(x, up, *named, begin, up_begin, width);
  }
  return GateByDefinition(x, up, activation, begin, up_begin, width);
}

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) { m.impl("gate", &GateOnCpu); }

}  // namespace lmfusion
