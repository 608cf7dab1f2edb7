// The CPU's kernels of lmfusion::gate (ops/definitions/gate.cpp): see kernels/rows/rows.h.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "kernels/rows/rows.h"
#include "ops/definitions/definitions.h"
#include "ops/float_rows.h"

namespace lmfusion {
namespace {

using RowGate = void (*)(const float* gate, const float* up, int64_t n, float* y);

// Whether a gate can be applied row by row; false where one of the two is broadcast.
bool AreRows(const at::Tensor& gate, const at::Tensor& up) {
  return gate.scalar_type() == at::kFloat && up.scalar_type() == at::kFloat && gate.dim() >= 2 &&
         gate.sizes().slice(0, gate.dim() - 1) ==
             up.sizes().slice(0, std::max<int64_t>(1, up.dim()) - 1);
}

at::Tensor Gated(const at::Tensor& gate, const at::Tensor& up, int64_t begin, int64_t up_begin,
                 int64_t width, RowGate gate_row) {
  const FloatRows g(gate), u = up.is_same(gate) ? g : FloatRows(up);
  TORCH_CHECK(width >= 0 && begin >= 0 && begin + width <= g.width && up_begin >= 0 &&
                  up_begin + width <= u.width,
              "gate: columns ", begin, " and ", up_begin, " of width ", width, " do not lie in ",
              gate.sizes(), " and ", up.sizes());
  std::vector<int64_t> sizes = gate.sizes().vec();
  sizes.back() = width;
  at::Tensor out = at::empty(sizes, gate.options());
  const float* gates = g.data + begin;
  const float* ups = u.data + up_begin;
  float* to = out.data_ptr<float>();
  ForRows(g.count, width, [&](int64_t row) {
    gate_row(gates + row * g.stride, ups + row * u.stride, width, to + row * width);
  });
  return out;
}

at::Tensor GeluTanh(const at::Tensor& x) {
  CheckFloat("gate", x);
  const FloatRows in(x);
  at::Tensor out = at::empty(x.sizes(), x.options());
  float* to = out.data_ptr<float>();
  const RowKernels& kernels = CurrentRowKernels();
  ForRows(in.count, in.width, [&](int64_t row) {
    kernels.gelu_tanh(in.data + row * in.stride, in.width, to + row * in.width);
  });
  return out;
}

at::Tensor Gate(const at::Tensor& x, const std::optional<at::Tensor>& up,
                c10::string_view activation, int64_t begin, int64_t up_begin, int64_t width) {
  const RowKernels& kernels = CurrentRowKernels();
  if (up && AreRows(x, *up)) {
    if (activation == "silu") return Gated(x, *up, begin, up_begin, width, kernels.silu_mul);
    if (activation == "gelu_tanh") {
      return Gated(x, *up, begin, up_begin, width, kernels.gelu_tanh_mul);
    }
  }
  if (!up && activation == "gelu_tanh" && x.scalar_type() == at::kFloat) {
    return GeluTanh(x.narrow(-1, begin, width));
  }
  return GateByDefinition(x, up, activation, begin, up_begin, width);
}

}  // namespace

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) { m.impl("gate", &Gate); }

}  // namespace lmfusion
