#include "ops/narrow_weights.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>
#include <torch/version.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "kernels/linear/narrow_blocks.h"
#include "kernels/linear/panel_format.h"
#include "ops/definitions/definitions.h"

namespace lmfusion {
namespace {

constexpr int64_t kSliceWeights = int64_t{1} << 20;

// Calls f(begin, end) for slices of the rows of a matrix.
template <typename F>
void ForSlices(int64_t rows, int64_t columns, F f) {
  const int64_t step = std::max<int64_t>(kSliceWeights / std::max<int64_t>(columns, 1), 1);
  for (int64_t begin = 0; begin < rows; begin += step) f(begin, std::min(rows, begin + step));
}

int64_t ColumnsOf(const WeightRows& weight) {
  const int64_t size = weight.data.size(1);
  return weight.type == WeightType::kFloat ? size : size / BlockBytes(weight.type) * kBlockInputs;
}

// Rows [begin, end) in float32, contiguous.
at::Tensor Floats(const WeightRows& weight, int64_t begin, int64_t end) {
  const at::Tensor slice = weight.data.slice(0, begin, end).contiguous();
  if (weight.type == WeightType::kFloat) return slice.to(at::kFloat);
  const at::Tensor wide = at::empty({end - begin, ColumnsOf(weight)}, at::kFloat);
  WidenBlocks(slice.const_data_ptr<uint8_t>(), weight.type, wide.numel() / kBlockInputs,
              wide.data_ptr<float>());
  return wide;
}

at::Tensor InType(const WeightRows& weight, at::ScalarType type) {
  if (weight.type == WeightType::kFloat && weight.data.scalar_type() == type) {
    return weight.data.contiguous();
  }
  const int64_t rows = weight.data.size(0), columns = ColumnsOf(weight);
  const at::Tensor result = at::empty({rows, columns}, type);
  ForSlices(rows, columns, [&](int64_t begin, int64_t end) {
    result.slice(0, begin, end).copy_(Floats(weight, begin, end));
  });
  return result;
}

void CheckFinite(const at::Tensor& weights) {
  if (weights.isfinite().all().item<bool>()) return;
  throw std::invalid_argument(
      "a weight that is not finite has no 8-bit or 4-bit form; use float32");
}

NarrowWeight InBytes(const WeightRows& weight) {
  const int64_t rows = weight.data.size(0), columns = ColumnsOf(weight);
  const NarrowWeight narrow = {at::empty({rows, columns}, at::kChar),
                               at::empty({rows}, at::kFloat)};
  ForSlices(rows, columns, [&](int64_t begin, int64_t end) {
    const at::Tensor floats = Floats(weight, begin, end);
    CheckFinite(floats);
    QuantizeRows(floats.const_data_ptr<float>(), end - begin, columns,
                 narrow.values.data_ptr<int8_t>() + begin * columns,
                 narrow.scales->data_ptr<float>() + begin);
  });
  return narrow;
}

NarrowWeight EmptyBlocks(int64_t rows, int64_t columns) {
  return {at::empty({rows, columns / 2}, at::kByte),
          at::empty({rows, columns / kBlockInputs, 2}, at::kHalf)};
}

NarrowBlocks BlocksIn(const NarrowWeight& weight) {
  return {weight.values.data_ptr<uint8_t>(), static_cast<uint16_t*>(weight.scales->data_ptr())};
}

NarrowWeight InBlocks(const WeightRows& weight) {
  const int64_t rows = weight.data.size(0), columns = ColumnsOf(weight);
  NarrowWeight narrow = EmptyBlocks(rows, columns);
  if (weight.type != WeightType::kFloat) {
    const at::Tensor blocks = weight.data.contiguous();
    RepackBlocks(blocks.const_data_ptr<uint8_t>(), weight.type, rows * columns / kBlockInputs,
                 BlocksIn(narrow));
    return narrow;
  }
  ForSlices(rows, columns, [&](int64_t begin, int64_t end) {
    const at::Tensor floats = Floats(weight, begin, end);
    CheckFinite(floats);
    QuantizeBlocks(floats.const_data_ptr<float>(), floats.numel() / kBlockInputs,
                   begin * columns / kBlockInputs, BlocksIn(narrow));
  });
  return narrow;
}

at::Tensor DequantizeCpu(const at::Tensor& values, const at::Tensor& scales) {
  const at::Tensor result = at::empty({values.size(0), 2 * values.size(1)}, at::kBFloat16);
  const QuantizedMatrix m = MatrixOf(values, scales, result);
  for (int64_t pair = 0; pair < m.rows * m.columns / 2; ++pair) DequantizePair(m, pair);
  return result;
}

}  // namespace

int64_t NarrowWeight::bytes() const {
  return static_cast<int64_t>(values.nbytes() + (scales ? scales->nbytes() : 0));
}

QuantizedMatrix MatrixOf(const at::Tensor& values, const at::Tensor& scales,
                         const at::Tensor& result) {
  QuantizedMatrix m;
  m.values = values.const_data_ptr<uint8_t>();
  m.scales = static_cast<Float16*>(scales.data_ptr());
  m.rows = result.size(0);
  m.columns = result.size(1);
  m.group = m.columns / scales.size(1);
  m.result = static_cast<BFloat16*>(result.data_ptr());
  return m;
}

NarrowWeight Narrowed(const WeightRows& weight, Compute compute) {
  switch (compute) {
    case Compute::kFloat32: return {InType(weight, at::kFloat), std::nullopt};
    case Compute::kFloat16: return {InType(weight, at::kHalf), std::nullopt};
    case Compute::kBFloat16: return {InType(weight, at::kBFloat16), std::nullopt};
    case Compute::kInt8: return InBytes(weight);
    case Compute::kInt4: break;
  }
  if (weight.type == WeightType::kQ8_0) return InBytes(weight);
  if (ColumnsOf(weight) % kBlockInputs == 0) return InBlocks(weight);
  return {InType(weight, at::kBFloat16), std::nullopt};
}

at::Tensor Widened(const at::Tensor& values, const std::optional<at::Tensor>& scales) {
  if (values.scalar_type() == at::kChar) return values.to(at::kBFloat16);  // exact
  if (!scales) return values;
  static const auto dequantize = c10::Dispatcher::singleton()
                                     .findSchemaOrThrow("lmfusion::dequantize", "")
                                     .typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
  return dequantize.call(values, *scales);
}

at::Tensor ProductsInFloat32(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor narrow = a.to(b.scalar_type());
  if (b.scalar_type() == at::kFloat) return at::linear(narrow, b);
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 8
  if (b.is_cuda()) return at::mm(narrow, b.t(), at::kFloat);
#endif
  // The CPU, and torch before 2.8, has no product of 16 bit numbers in float32; widening is exact.
  return at::linear(narrow.to(at::kFloat), b.to(at::kFloat));
}

at::Tensor NarrowLinear(const at::Tensor& x, const at::Tensor& values,
                        const std::optional<at::Tensor>& scales,
                        const std::optional<at::Tensor>& bias) {
  const at::Tensor weight = Widened(values, scales);
  std::vector<int64_t> sizes = x.sizes().vec();
  at::Tensor products = ProductsInFloat32(x.reshape({-1, sizes.back()}), weight);
  if (values.scalar_type() == at::kChar) products.mul_(*scales);
  sizes.back() = weight.size(0);
  products = products.view(sizes);
  return bias ? products.add_(*bias) : products;
}

at::Tensor NarrowLinearAdd(const at::Tensor& x, const at::Tensor& values,
                           const std::optional<at::Tensor>& scales,
                           const std::optional<at::Tensor>& bias, const at::Tensor& residual,
                           double scale) {
  return at::add(residual, NarrowLinear(x, values, scales, bias), scale);
}

// The product with one expert's rows of a narrow matrix [experts * rows, columns].
ExpertProduct ProductWith(const at::Tensor& values, const std::optional<at::Tensor>& scales,
                          const std::optional<at::Tensor>& bias, int64_t count) {
  const int64_t rows = values.size(0) / count;
  const auto part = [rows](const std::optional<at::Tensor>& all, int64_t expert) {
    return all ? std::optional<at::Tensor>(all->narrow(0, expert * rows, rows)) : std::nullopt;
  };
  return [=](int64_t expert, const at::Tensor& x) {
    return NarrowLinear(x, *part(values, expert), part(scales, expert), part(bias, expert));
  };
}

at::Tensor NarrowExperts(const at::Tensor& x, const at::Tensor& logits, const at::Tensor& gate_up,
                         const std::optional<at::Tensor>& gate_up_scales,
                         const std::optional<at::Tensor>& gate_up_bias, const at::Tensor& down,
                         const std::optional<at::Tensor>& down_scales,
                         const std::optional<at::Tensor>& down_bias,
                         const std::optional<at::Tensor>& residual, c10::string_view activation,
                         int64_t count, int64_t top_k, bool normalized) {
  return SumOfExperts(x, logits, residual, activation, count, top_k, normalized,
                      ProductWith(gate_up, gate_up_scales, gate_up_bias, count),
                      ProductWith(down, down_scales, down_bias, count));
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def(
      "narrow_experts(Tensor x, Tensor logits, Tensor gate_up, Tensor? gate_up_scales, "
      "Tensor? gate_up_bias, Tensor down, Tensor? down_scales, Tensor? down_bias, "
      "Tensor? residual, str activation, int count, int top_k, bool normalized) -> Tensor",
      &NarrowExperts);
  m.def("dequantize(Tensor values, Tensor scales) -> Tensor");
  m.def("narrow_linear(Tensor x, Tensor values, Tensor? scales, Tensor? bias) -> Tensor",
        &NarrowLinear);
  m.def(
      "narrow_linear_add(Tensor x, Tensor values, Tensor? scales, Tensor? bias, Tensor residual, "
      "float scale) -> Tensor",
      &NarrowLinearAdd);
}

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) { m.impl("dequantize", &DequantizeCpu); }

}  // namespace lmfusion
