#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>

// Products with a weight [out, in] as a bundle holds it. A loaded model computes them with weights
// that are packed (ops/packed_linear.h) or narrow (ops/narrow_weights.h).

namespace lmfusion {
namespace {

at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias) {
  return at::linear(x, weight, bias);
}

// residual + scale * (x . weight^T + bias)
at::Tensor LinearAdd(const at::Tensor& x, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias, const at::Tensor& residual,
                     double scale) {
  return at::add(residual, Linear(x, weight, bias), scale);
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  m.def(
      "linear_add(Tensor x, Tensor weight, Tensor? bias, Tensor residual, float scale) -> Tensor");
}

TORCH_LIBRARY_IMPL(lmfusion, CompositeExplicitAutograd, m) {
  m.impl("linear", &Linear);
  m.impl("linear_add", &LinearAdd);
}

}  // namespace
}  // namespace lmfusion
