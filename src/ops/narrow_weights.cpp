#include "ops/narrow_weights.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "kernels/linear/weight_blocks.h"
#include "kernels/threads/parallel.h"
#include "ops/definitions/definitions.h"
#include "ops/pack_weights.h"

namespace lmfusion {
namespace {

constexpr int64_t kPieceWeights = int64_t{1} << 20;

// Calls f(begin, end) for pieces of the rows of a matrix.
template <typename F>
void ForPieces(int64_t rows, int64_t columns, F f) {
  const int64_t step = std::max<int64_t>(kPieceWeights / std::max<int64_t>(columns, 1), 1);
  for (int64_t begin = 0; begin < rows; begin += step) f(begin, std::min(rows, begin + step));
}

int64_t ColumnsOf(const WeightRows& weight) {
  const int64_t size = weight.data.size(1);
  return weight.type == WeightType::kFloat ? size : size / BlockBytes(weight.type) * kBlockInputs;
}

// Calls f(block, number) for the blocks of a matrix, on many threads.
template <typename F>
void ForBlocks(const at::Tensor& blocks, WeightType type, F f) {
  const at::Tensor dense = blocks.contiguous();
  const uint8_t* from = dense.const_data_ptr<uint8_t>();
  const int64_t size = BlockBytes(type);
  ParallelFor(0, dense.numel() / size, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint8_t* block = from + i * size;
      if (type == WeightType::kQ8_0) {
        f(ReadQ8_0(block), i);
      } else {
        f(type == WeightType::kQ4_0 ? ReadQ4_0(block) : ReadQ4_1(block), i);
      }
    }
  });
}

// Rows [begin, end) in float32, contiguous.
at::Tensor Floats(const WeightRows& weight, int64_t begin, int64_t end) {
  const at::Tensor piece = weight.data.slice(0, begin, end);
  if (weight.type == WeightType::kFloat) return piece.to(at::kFloat).contiguous();
  const at::Tensor wide = at::empty({end - begin, ColumnsOf(weight)}, at::kFloat);
  float* to = wide.data_ptr<float>();
  ForBlocks(piece, weight.type, [to](const auto& block, int64_t number) {
    WeightsOf(block, to + number * kBlockInputs);
  });
  return wide;
}

at::Tensor InType(const WeightRows& weight, at::ScalarType type) {
  if (weight.type == WeightType::kFloat && weight.data.scalar_type() == type) {
    return weight.data.contiguous();
  }
  const int64_t rows = weight.data.size(0), columns = ColumnsOf(weight);
  const at::Tensor result = at::empty({rows, columns}, type);
  ForPieces(rows, columns, [&](int64_t begin, int64_t end) {
    result.slice(0, begin, end).copy_(Floats(weight, begin, end));
  });
  return result;
}

// Where the blocks of a matrix go. A block of row r and columns 32 b to 32 b + 31 is number
// r * columns / 32 + b.
struct BlockWriter {
  BlockWriter(int64_t rows, int64_t columns, bool four_bits)
      : values(at::empty({rows, columns / (four_bits ? 2 : 1)}, four_bits ? at::kByte : at::kChar)),
        scales(four_bits ? at::empty({rows, columns / kBlockInputs, 2}, at::kHalf)
                         : at::empty({rows, columns / kBlockInputs}, at::kHalf)),
        bytes(static_cast<uint8_t*>(values.data_ptr())),
        halves(static_cast<uint16_t*>(scales.data_ptr())) {}

  void Write(const Q4Weights& block, int64_t number) const {
    uint8_t* pairs = bytes + number * (kBlockInputs / 2);
    for (int64_t i = 0; i < kBlockInputs; i += 2) {
      pairs[i / 2] = static_cast<uint8_t>(block.q[i] | block.q[i + 1] << 4);
    }
    halves[2 * number] = block.scale;
    halves[2 * number + 1] = block.minimum;
  }
  void Write(const Q8Weights& block, int64_t number) const {
    std::memcpy(bytes + number * kBlockInputs, block.q, kBlockInputs);
    halves[number] = block.scale;
  }

  const at::Tensor values, scales;
  uint8_t* const bytes;
  uint16_t* const halves;
};

NarrowWeight Quantized(const WeightRows& weight, bool four_bits) {
  const int64_t rows = weight.data.size(0), columns = weight.data.size(1);
  const BlockWriter writer(rows, columns, four_bits);
  ForPieces(rows, columns, [&](int64_t begin, int64_t end) {
    const at::Tensor floats = Floats(weight, begin, end);
    if (!floats.isfinite().all().item<bool>()) {
      throw std::invalid_argument(
          "a weight that is not finite has no 8-bit or 4-bit form; use float32");
    }
    const float* from = floats.const_data_ptr<float>();
    const int64_t first = begin * columns / kBlockInputs;
    ParallelFor(0, floats.numel() / kBlockInputs, 256, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const float* block = from + i * kBlockInputs;
        if (four_bits) {
          writer.Write(QuantizeQ4(block), first + i);
        } else {
          writer.Write(QuantizeQ8(block), first + i);
        }
      }
    });
  });
  return {writer.values, writer.scales};
}

NarrowWeight Repacked(const WeightRows& weight) {
  const BlockWriter writer(weight.data.size(0), ColumnsOf(weight),
                           weight.type != WeightType::kQ8_0);
  ForBlocks(weight.data, weight.type,
            [&writer](const auto& block, int64_t number) { writer.Write(block, number); });
  return {writer.values, writer.scales};
}

at::Tensor DequantizeCpu(const at::Tensor& values, const at::Tensor& scales) {
  const int64_t columns = values.size(1) * (values.scalar_type() == at::kByte ? 2 : 1);
  const at::Tensor result = at::empty({values.size(0), columns}, at::kBFloat16);
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
  m.values = values.data_ptr();
  m.scales = static_cast<Float16*>(scales.data_ptr());
  m.rows = result.size(0);
  m.columns = result.size(1);
  m.group = m.columns / scales.size(1);
  m.bits = values.scalar_type() == at::kByte ? 4 : 8;
  m.result = static_cast<BFloat16*>(result.data_ptr());
  return m;
}

NarrowWeight Narrowed(const WeightRows& weight, const std::string& compute) {
  if (compute == "float32") return {InType(weight, at::kFloat), std::nullopt};
  if (compute == "float16") return {InType(weight, at::kHalf), std::nullopt};
  if (compute == "bfloat16") return {InType(weight, at::kBFloat16), std::nullopt};
  if (weight.type != WeightType::kFloat) return Repacked(weight);
  if (weight.data.size(1) % kBlockInputs == 0) return Quantized(weight, compute == "int4");
  return {InType(weight, at::kBFloat16), std::nullopt};
}

at::Tensor Widened(const at::Tensor& values, const std::optional<at::Tensor>& scales) {
  if (!scales) return values;
  static const auto dequantize = c10::Dispatcher::singleton()
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
