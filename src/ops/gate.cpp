#include "ops/gate.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>
#include <vector>

#include "ops/definitions/definitions.h"
#include "ops/float_rows.h"
#include "ops/pooled_floats.h"

namespace lmfusion {
namespace {

at::Tensor EmptyOfWidth(const at::Tensor& x, int64_t width) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = width;
  return EmptyFloats(sizes);
}

void CheckColumns(const at::Tensor& x, int64_t begin, int64_t width) {
  TORCH_CHECK(begin >= 0 && width >= 0 && begin + width <= x.size(-1), "gate: columns ", begin,
              " to ", begin + width, " do not lie in ", x.sizes());
}

// activation(x[..., begin : begin + width]); rows may be strided.
at::Tensor Activated(const at::Tensor& x, int64_t begin, int64_t width,
                     void (*kernel)(const float* x, int64_t n, float* y)) {
  CheckColumns(x, begin, width);
  const FloatRows in(x);
  at::Tensor out = EmptyOfWidth(x, width);
  float* to = out.data_ptr<float>();
  ForRows(in.count, width,
          [&](int64_t row) { kernel(in.data + begin + row * in.stride, width, to + row * width); });
  return out;
}

// The same times up[..., up_begin : up_begin + width].
at::Tensor Gated(const at::Tensor& x, const at::Tensor& up, int64_t begin, int64_t up_begin,
                 int64_t width,
                 void (*kernel)(const float* gate, const float* up, int64_t n, float* y)) {
  CheckColumns(x, begin, width);
  CheckColumns(up, up_begin, width);
  const FloatRows gates(x), ups = up.is_same(x) ? gates : FloatRows(up);
  at::Tensor out = EmptyOfWidth(x, width);
  float* to = out.data_ptr<float>();
  ForRows(gates.count, width, [&](int64_t row) {
    kernel(gates.data + begin + row * gates.stride, ups.data + up_begin + row * ups.stride, width,
           to + row * width);
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
    const RowKernels& kernels = CurrentRowKernels();
    const auto alone = kernels.activate[static_cast<int>(*named)];
    if (!up && alone) return Activated(x, begin, width, alone);
    if (up && IsFloat(*up) && AreRows(x, *up)) {
      return Gated(x, *up, begin, up_begin, width, kernels.gate[static_cast<int>(*named)]);
    }
  }
  return GateByDefinition(x, up, activation, begin, up_begin, width);
}

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) { m.impl("gate", &GateOnCpu); }

}  // namespace lmfusion
