// lmfusion::normalize on the CPU: a norm over the last dimension (RowNorm), and a residual added.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>

#include "kernels/rows/rows.h"
#include "ops/float_rows.h"
#include "ops/norm_weights.h"
#include "ops/pooled_floats.h"

namespace lmfusion {
namespace {

// `residual`, of the shape of x or broadcast to it, is added to the result.
at::Tensor Normalize(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                     const std::optional<at::Tensor>& bias,
                     const std::optional<at::Tensor>& residual, double epsilon, bool centered) {
  CheckFloat("normalize", x);
  if (residual && (residual->sizes() != x.sizes() || residual->scalar_type() != at::kFloat)) {
    return Normalize(x, weight, bias, std::nullopt, epsilon, centered) + *residual;
  }
  const NormWeights norm("normalize", weight, bias, epsilon, centered, x.size(-1));
  const at::Tensor added = residual ? residual->contiguous() : at::Tensor();
  const float* addends = residual ? added.const_data_ptr<float>() : nullptr;
  const FloatRows in(x);
  at::Tensor out = EmptyFloats(x.sizes());
  float* to = out.data_ptr<float>();
  const RowKernels& kernels = CurrentRowKernels();
  ForRows(in.count, in.width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      kernels.normalize(in.data + row * in.stride, norm.of_rows, in.width, to + row * in.width);
      if (addends) kernels.add(addends + row * in.width, in.width, to + row * in.width);
    }
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) { m.impl("normalize", &Normalize); }

}  // namespace lmfusion
