#include "ops/packed_linear.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "kernels/linear/weight_blocks.h"
#include "kernels/threads/parallel.h"
#include "ops/pack_weights.h"
#include "ops/panel_products.h"

namespace lmfusion {
namespace {

// Note [Packed matrices]
// A small batch takes as long as its weights take to read, a larger one as long as its products;
// both depend on how a weight is held. It is held in as few bytes as lose nothing:
//   float32 weights that are all representable in bfloat16 are held as bfloat16, and widened to
//   float32 in registers: half the bytes, the same answer;
//   blocks of GGUF files stay blocks (Q4_0 and Q4_1 as "q4", Q8_0 as "q8"), and a weight of
//   float32 comes into being in registers, d * q + m, rounded once, as the gguf package has it.
// What is lost otherwise is what `compute` says: kBFloat16 rounds all weights and
// activations to bfloat16. kInt8 turns weights into 8 bits with one scale an output. kInt4 does
// that with blocks of 8 bits, and turns floats into blocks of 4, which have a float16 scale and
// minimum for 32.
// Both multiply them with activations of 8 bits, which have a scale for each 32 of a row (one
// scale for a row loses the small ones beside an outlier, and language models have outliers).
// Outputs have no such outliers, and a scale for each block would cost kInt8 two operations after
// every eight.
constexpr const char* kComputeNames[] = {"float32", "bfloat16", "int8", "int4"};
constexpr const char* kFormatNames[] = {"float32", "bfloat16", "q4", "q8", "int8"};
constexpr const char* kTypeNames[] = {"float", "q4_0", "q4_1", "q8_0"};

template <class Enum, size_t kCount>
Enum ByName(const char* what, const char* const (&names)[kCount], const std::string& name) {
  std::string all;
  for (size_t i = 0; i < kCount; ++i) {
    if (name == names[i]) return static_cast<Enum>(i);
    all += (i > 0 ? ", \"" : "\"") + std::string(names[i]) + "\"";
  }
  throw std::invalid_argument(std::string(what) + " \"" + name + "\" is none of " + all);
}

c10::intrusive_ptr<PackedMatrix> PackOp(const std::vector<at::Tensor>& weights,
                                        const std::vector<std::string>& types,
                                        const std::optional<at::Tensor>& bias,
                                        const std::string& compute) {
  if (weights.size() != types.size()) {
    throw std::invalid_argument("lmfusion::pack: one type a weight expected");
  }
  std::vector<WeightRows> stacked;
  for (size_t i = 0; i < weights.size(); ++i) {
    stacked.push_back({weights[i], WeightTypeByName(types[i])});
  }
  return PackedMatrix::Pack(stacked, bias, ComputeByName(compute));
}

at::Tensor RowsOp(const c10::intrusive_ptr<PackedMatrix>& w, const at::Tensor& ids) {
  return w->Rows(ids);
}

at::Tensor LinearOp(const at::Tensor& x, const c10::intrusive_ptr<PackedMatrix>& weight) {
  return weight->Multiply(x);
}

at::Tensor LinearAddOp(const at::Tensor& x, const c10::intrusive_ptr<PackedMatrix>& weight,
                       const at::Tensor& residual, double scale) {
  return weight->MultiplyAdd(x, residual, static_cast<float>(scale));
}

}  // namespace

Compute ComputeByName(const std::string& name) {
  return ByName<Compute>("compute", kComputeNames, name);
}

const char* Name(Compute compute) { return kComputeNames[static_cast<int>(compute)]; }

WeightType WeightTypeByName(const std::string& name) {
  return ByName<WeightType>("weight type", kTypeNames, name);
}

PackedMatrix::PackedMatrix(Compute compute, PanelFormat format, int64_t out, int64_t in,
                           at::Tensor panels, const std::optional<at::Tensor>& bias)
    : compute_(compute), format_(format), out_(out), in_(in), panels_(std::move(panels)) {
  if (!bias) return;
  if (bias->dim() != 1 || bias->numel() != out_) {
    throw std::invalid_argument("packed matrix: a bias of " + std::to_string(out_) +
                                " values expected, got " + std::to_string(bias->numel()));
  }
  // Kernels read whole panels.
  at::Tensor padded = at::zeros({PanelsOf(out_) * kPanelOutputs}, at::kFloat);
  padded.slice(0, 0, out_).copy_(*bias);
  bias_ = padded.slice(0, 0, out_);
}

c10::intrusive_ptr<PackedMatrix> PackedMatrix::Pack(const std::vector<WeightRows>& stacked,
                                                    const std::optional<at::Tensor>& bias,
                                                    Compute compute) {
  const at::NoGradGuard no_grad;
  PackedPanels packed = PackWeights(stacked, compute);
  return c10::intrusive_ptr<PackedMatrix>::unsafe_steal_from_new(new PackedMatrix(
      compute, packed.format, packed.out, packed.in, std::move(packed.panels), bias));
}

int64_t PackedMatrix::bytes() const {
  return panels_.numel() + (bias_ ? bias_->numel() * static_cast<int64_t>(sizeof(float)) : 0);
}

at::Tensor PackedMatrix::Multiply(const at::Tensor& x) const { return MultiplyAdd(x, {}, 1); }

at::Tensor PackedMatrix::MultiplyAdd(const at::Tensor& x, const at::Tensor& residual,
                                     float scale) const {
  TORCH_CHECK(
      x.dim() > 0 && x.size(-1) == in_ && x.scalar_type() == at::kFloat && x.device().is_cpu(),
      "linear: float32 activations [..., ", in_, "] on the CPU expected, got ", x.sizes(), " of ",
      x.dtype());
  const at::Tensor rows = x.contiguous();
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = out_;
  at::Tensor y = at::empty(sizes, x.options());
  const bool adds = residual.defined() && residual.sizes() == y.sizes() &&
                    residual.scalar_type() == at::kFloat && residual.is_contiguous();
  Multiply(rows.const_data_ptr<float>(), rows.numel() / in_, y.data_ptr<float>(),
           adds ? residual.const_data_ptr<float>() : nullptr, scale);
  return residual.defined() && !adds ? residual + y * scale : y;
}

void PackedMatrix::Multiply(const float* x, int64_t rows, float* y, const float* residual,
                            float scale) const {
  if (rows == 0) return;
  const PanelProducts products(*this, x, rows);
  ParallelFor(0, PanelsOf(out_), products.grain(), [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kPanelOutputs, last = std::min(end * kPanelOutputs, out_);
    products.Compute(begin, end - begin, y + first, out_);
    if (residual == nullptr) return;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = row * out_ + first; i < row * out_ + last; ++i) {
        y[i] = residual[i] + scale * y[i];
      }
    }
  });
}

at::Tensor PackedMatrix::Rows(const at::Tensor& ids) const {
  TORCH_CHECK(ids.scalar_type() == at::kLong && ids.device().is_cpu(),
              "packed matrix: int64 row numbers on the CPU expected, got ", ids.dtype());
  const at::Tensor flat = ids.contiguous();
  const int64_t* row_ids = flat.const_data_ptr<int64_t>();
  const int64_t count = flat.numel();
  for (int64_t i = 0; i < count; ++i) {
    TORCH_CHECK_INDEX(row_ids[i] >= 0 && row_ids[i] < out_, "packed matrix: row ", row_ids[i],
                      " of ", out_);
  }
  std::vector<int64_t> sizes = ids.sizes().vec();
  sizes.push_back(in_);
  at::Tensor rows = at::empty(sizes, at::kFloat);
  float* values = rows.data_ptr<float>();
  ParallelFor(0, count, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ReadRow(format_, panels_.const_data_ptr<uint8_t>(), in_, row_ids[i], values + i * in_);
    }
  });
  return rows;
}

at::Tensor PackedMatrix::Dequantized() const { return WidenPanels({format_, out_, in_, panels_}); }

std::string PackedMatrix::format() const { return kFormatNames[static_cast<int>(format_)]; }

PackedMatrix::State PackedMatrix::state() const {
  return {
      {static_cast<int64_t>(compute_), static_cast<int64_t>(format_), out_, in_}, panels_, bias_};
}

c10::intrusive_ptr<PackedMatrix> PackedMatrix::FromState(State state) {
  auto& [numbers, panels, bias] = state;
  const auto refuse = [](const char* what) {
    throw std::invalid_argument(std::string("packed matrix: the file holds ") + what);
  };
  if (numbers.size() != 4 || numbers[0] < 0 || numbers[0] > static_cast<int>(Compute::kInt4) ||
      numbers[1] < 0 || numbers[1] >= kPanelFormats || numbers[2] <= 0 || numbers[3] <= 0) {
    refuse("a header that this version does not know");
  }
  const auto compute = static_cast<Compute>(numbers[0]);
  const auto format = static_cast<PanelFormat>(numbers[1]);
  const int64_t out = numbers[2], in = numbers[3];
  if (panels.scalar_type() != at::kByte || !panels.is_contiguous() ||
      panels.numel() != PanelsOf(out) * PanelBytes(format, BlocksOf(in))) {
    refuse("panels of another size than its header says");
  }
  const bool int8 = format == PanelFormat::kInt8;
  const bool fits = compute == Compute::kInt8   ? int8
                    : compute == Compute::kInt4 ? int8 || format == PanelFormat::kQ4
                                                : !int8;
  if (!fits) {
    refuse("weights of another kind than its products take");
  }
  return c10::intrusive_ptr<PackedMatrix>::unsafe_steal_from_new(
      new PackedMatrix(compute, format, out, in, panels, bias));
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.class_<PackedMatrix>("PackedMatrix")
      .def("multiply", static_cast<at::Tensor (PackedMatrix::*)(const at::Tensor&) const>(
                           &PackedMatrix::Multiply))
      .def("rows", &PackedMatrix::Rows)
      .def("dequantized", &PackedMatrix::Dequantized)
      .def("bytes", &PackedMatrix::bytes)
      .def("format", &PackedMatrix::format)
      .def("out_features", &PackedMatrix::out_features)
      .def("in_features", &PackedMatrix::in_features)
      .def_pickle(
          [](const c10::intrusive_ptr<PackedMatrix>& self) { return self->state(); },
          [](PackedMatrix::State state) { return PackedMatrix::FromState(std::move(state)); });
  m.def(
      "pack(Tensor[] weights, str[] types, Tensor? bias, str compute) -> "
      "__torch__.torch.classes.lmfusion.PackedMatrix",
      &PackOp);
  m.def("rows(__torch__.torch.classes.lmfusion.PackedMatrix w, Tensor ids) -> Tensor", &RowsOp);
  m.def("linear.packed(Tensor x, __torch__.torch.classes.lmfusion.PackedMatrix w) -> Tensor",
        &LinearOp);
  m.def(
      "linear_add.packed(Tensor x, __torch__.torch.classes.lmfusion.PackedMatrix w, "
      "Tensor residual, float scale) -> Tensor",
      &LinearAddOp);
}

}  // namespace lmfusion
