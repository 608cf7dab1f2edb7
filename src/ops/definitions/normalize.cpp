#include "ops/definitions/definitions.h"

#include <ATen/ATen.h>
#include <torch/library.h>

namespace lmfusion {

at::Tensor NormalizedByDefinition(const at::Tensor& x, double epsilon, bool centered) {
  const at::Tensor deviation = centered ? x - x.mean(-1, /*keepdim=*/true) : x;
  return deviation * deviation.square().mean(-1, /*keepdim=*/true).add(epsilon).rsqrt();
}

namespace {

at::Tensor Normalize(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                     const std::optional<at::Tensor>& bias,
                     const std::optional<at::Tensor>& residual, double epsilon, bool centered) {
  at::Tensor y = NormalizedByDefinition(x, epsilon, centered);
  if (weight) y = y * *weight;
  if (bias) y = y + *bias;
  return residual ? *residual + y : y;
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  // (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * weight + bias + residual over the last
  // dimension of x (Ba et al. 2016); the mean is 0 where not `centered` (Zhang & Sennrich 2019).
  // weight, bias: of that dimension. residual: of the shape of x, or broadcast to it.
  m.def(
      "normalize(Tensor x, Tensor? weight, Tensor? bias, Tensor? residual, float epsilon, "
      "bool centered) -> Tensor");
}

TORCH_LIBRARY_IMPL(lmfusion, CompositeExplicitAutograd, m) { m.impl("normalize", &Normalize); }

}  // namespace
}  // namespace lmfusion
