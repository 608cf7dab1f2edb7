#include "ops/narrow_weights.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <vector>

namespace lmfusion {
namespace {

NarrowWeight Quantized(const at::Tensor& weight, int64_t group, double largest) {
  const int64_t rows = weight.size(0), columns = weight.size(1);
  const at::Tensor groups = weight.to(at::kFloat).reshape({rows, columns / group, group});
  const at::Tensor scales = (groups.abs().amax(2) / largest).clamp_min(1e-20);
  const at::Tensor values = (groups / scales.unsqueeze(2))
                                .round()
                                .clamp(-largest, largest)
                                .reshape({rows, columns});
  return {values, scales.contiguous()};
}

at::Tensor DequantizeCpu(const at::Tensor& values, const at::Tensor& scales) {
  const int64_t columns = values.size(1) * (values.scalar_type() == at::kByte ? 2 : 1);
  const at::Tensor result = at::empty({values.size(0), columns}, at::kBFloat16);
  const QuantizedMatrix m = MatrixOf(values, scales, result);
  for (int64_t pair = 0; pair < m.rows * m.columns / 2; ++pair) DequantizePair(m, pair);
  return result;
}

}  // namespace

QuantizedMatrix MatrixOf(const at::Tensor& values, const at::Tensor& scales,
                         const at::Tensor& result) {
  QuantizedMatrix m;
  m.values = values.data_ptr();
  m.scales = scales.data_ptr<float>();
  m.rows = result.size(0);
  m.columns = result.size(1);
  m.group = m.columns / scales.size(1);
  m.bits = values.scalar_type() == at::kByte ? 4 : 8;
  m.result = static_cast<BFloat16*>(result.data_ptr());
  return m;
}

NarrowWeight Narrowed(const at::Tensor& weight, const std::string& compute) {
  const int64_t columns = weight.size(1);
  if (compute == "float16") return {weight.to(at::kHalf).contiguous(), std::nullopt};
  if (compute == "int8" && columns % 2 == 0) {
    NarrowWeight narrow = Quantized(weight, columns, 127);
    narrow.values = narrow.values.to(at::kChar).contiguous();
    return narrow;
  }
  if (compute == "int4" && columns % kInt4Group == 0) {
    NarrowWeight narrow = Quantized(weight, kInt4Group, 7);
    const at::Tensor pairs =
        (narrow.values + 8).to(at::kByte).reshape({weight.size(0), columns / 2, 2});
    narrow.values = (pairs.select(2, 0) + pairs.select(2, 1) * 16).contiguous();
    return narrow;
  }
  return {weight.to(at::kBFloat16).contiguous(), std::nullopt};
}

at::Tensor Widened(const at::Tensor& values, const std::optional<at::Tensor>& scales) {
  if (!scales) return values;
  static const auto dequantize =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("lmfusion::dequantize", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
  return dequantize.call(values, *scales);
}

at::Tensor ProductsInFloat32(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor narrow = a.to(b.scalar_type());
  if (b.scalar_type() == at::kFloat) return at::linear(narrow, b);
  if (b.is_cuda()) return at::mm(narrow, b.t(), at::kFloat);
  // The CPU has no product of 16 bit numbers that returns float32; widening is exact.
  return at::linear(narrow.to(at::kFloat), b.to(at::kFloat));
}

at::Tensor NarrowLinear(const at::Tensor& x, const at::Tensor& values,
                        const std::optional<at::Tensor>& scales,
                        const std::optional<at::Tensor>& bias) {
  const at::Tensor weight = Widened(values, scales);
  std::vector<int64_t> sizes = x.sizes().vec();
  at::Tensor products = ProductsInFloat32(x.reshape({-1, sizes.back()}), weight);
  sizes.back() = weight.size(0);
  products = products.view(sizes);
  return bias ? products.add_(*bias) : products;
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def("dequantize(Tensor values, Tensor scales) -> Tensor");
  m.def("narrow_linear(Tensor x, Tensor values, Tensor? scales, Tensor? bias) -> Tensor",
        &NarrowLinear);
}

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) { m.impl("dequantize", &DequantizeCpu); }

}  // namespace lmfusion
