// lmfusion::normalize on the CPU: a norm over the last dimension (RowNorm), and a residual added.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>

#include "kernels/rows/rows.h"
#include "ops/float_rows.h"
#include "ops/pooled_floats.h"

namespace lmfusion {
namespace {

at::Tensor Dense(const char* name, const std::optional<at::Tensor>& numbers, int64_t width) {
  if (!numbers) return {};
  TORCH_CHECK(
      numbers->dim() == 1 && numbers->numel() == width && numbers->scalar_type() == at::kFloat,
      "normalize: float32 ", name, " [", width, "] expected, got ", numbers->sizes());
  return numbers->contiguous();
}

// `residual`, of the shape of x or broadcast to it, is added to the result.
at::Tensor Normalize(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                     const std::optional<at::Tensor>& bias,
                     const std::optional<at::Tensor>& residual, double epsilon, bool centered) {
  CheckFloat("normalize", x);
  if (residual && (residual->sizes() != x.sizes() || residual->scalar_type() != at::kFloat)) {
    return Normalize(x, weight, bias, std::nullopt, epsilon, centered) + *residual;
  }
  const at::Tensor weights = Dense("weights", weight, x.size(-1));
  const at::Tensor biases = Dense("biases", bias, x.size(-1));
  const at::Tensor added = residual ? residual->contiguous() : at::Tensor();
  const RowNorm norm{weight ? weights.const_data_ptr<float>() : nullptr,
                     bias ? biases.const_data_ptr<float>() : nullptr, static_cast<float>(epsilon),
                     centered};
  const float* addends = residual ? added.const_data_ptr<float>() : nullptr;
  const FloatRows in(x);
  at::Tensor out = EmptyFloats(x.sizes());
  float* to = out.data_ptr<float>();
  const RowKernels& kernels = CurrentRowKernels();
  ForRows(in.count, in.width, [&](int64_t row) {
    kernels.normalize(in.data + row * in.stride, norm, in.width, to + row * in.width);
    if (addends) kernels.add(addends + row * in.width, in.width, to + row * in.width);
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) { m.impl("normalize", &Normalize); }

}  // namespace lmfusion
