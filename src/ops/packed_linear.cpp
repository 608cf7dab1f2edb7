#include "ops/packed_linear.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <string>
#include <utility>

#include "ops/float_rows.h"
#include "ops/norm_weights.h"
#include "ops/pooled_floats.h"

namespace lmfusion {
namespace {

using Matrix = c10::intrusive_ptr<PackedMatrix>;

// What Python makes, for benchmarks.
Matrix PackedFloatMatrix(const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                         const std::string& compute) {
  return PackedMatrix::Pack({{weight}}, bias, ComputeByName(compute));
}

at::Tensor NormalizedLinear(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& bias, double epsilon, bool centered,
                            const Matrix& w) {
  const NormWeights norm("normalized_linear", weight, bias, epsilon, centered, w->in_features());
  return w->Multiply(x, &norm.of_rows);
}

}  // namespace

Matrix PackedMatrix::Pack(const std::vector<WeightRows>& stacked,
                          const std::optional<at::Tensor>& bias, Compute compute) {
  return Matrix::unsafe_steal_from_new(new PackedMatrix(PackWeights(stacked, bias, compute)));
}

at::Tensor PackedMatrix::Multiply(const at::Tensor& x, const RowNorm* norm) const {
  return MultiplyAdd(x, {}, 1, norm);
}

at::Tensor PackedMatrix::MultiplyAdd(const at::Tensor& x, const at::Tensor& residual, float scale,
                                     const RowNorm* norm) const {
  const int64_t in = in_features();
  CheckActivations("linear", x, in);
  const at::Tensor rows = x.contiguous();
  at::Tensor y = EmptyRows(x, out_features());
  const bool adds = IsAddend(residual, y);
  lmfusion::Multiply(weight_, rows.const_data_ptr<float>(), rows.numel() / in, y.data_ptr<float>(),
                     adds ? residual.const_data_ptr<float>() : nullptr, scale, norm);
  return residual.defined() && !adds ? residual + y * scale : y;
}

bool IsAddend(const at::Tensor& residual, const at::Tensor& y) {
  return residual.defined() && residual.sizes() == y.sizes() &&
         residual.scalar_type() == at::kFloat && residual.is_contiguous();
}

at::Tensor PackedMatrix::Rows(const at::Tensor& ids) const {
  TORCH_CHECK(ids.scalar_type() == at::kLong && ids.device().is_cpu(),
              "packed matrix: int64 row numbers on the CPU expected, got ", ids.dtype());
  const at::Tensor flat = ids.contiguous();
  const int64_t* numbers = flat.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < flat.numel(); ++i) {
    TORCH_CHECK_INDEX(numbers[i] >= 0 && numbers[i] < out_features(), "packed matrix: row ",
                      numbers[i], " of ", out_features());
  }
  std::vector<int64_t> sizes = ids.sizes().vec();
  sizes.push_back(in_features());
  at::Tensor rows = EmptyFloats(sizes);
  ReadRows(weight_, numbers, flat.numel(), rows.data_ptr<float>());
  return rows;
}

at::Tensor PackedMatrix::Dequantized() const {
  at::Tensor wide = at::empty({out_features(), in_features()}, at::kFloat);
  Widen(weight_, wide.data_ptr<float>());
  return wide;
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.class_<PackedMatrix>("PackedMatrix").def(torch::init(&PackedFloatMatrix));
  m.def("rows(__torch__.torch.classes.lmfusion.PackedMatrix w, Tensor ids) -> Tensor",
        [](const Matrix& w, const at::Tensor& ids) { return w->Rows(ids); });
  m.def("linear.packed(Tensor x, __torch__.torch.classes.lmfusion.PackedMatrix w) -> Tensor",
        [](const at::Tensor& x, const Matrix& w) { return w->Multiply(x); });
  m.def(
      "normalized_linear(Tensor x, Tensor? norm_weight, Tensor? norm_bias, float epsilon, bool "
      "centered, __torch__.torch.classes.lmfusion.PackedMatrix w) -> Tensor",
      &NormalizedLinear);
  m.def(
      "linear_add.packed(Tensor x, __torch__.torch.classes.lmfusion.PackedMatrix w, Tensor "
      "residual, "
      "float scale) -> Tensor",
      [](const at::Tensor& x, const Matrix& w, const at::Tensor& residual, double scale) {
        return w->MultiplyAdd(x, residual, static_cast<float>(scale));
      });
}

}  // namespace lmfusion
