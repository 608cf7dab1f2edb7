#include "ops/pack_weights.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <sstream>
#include <stdexcept>
#include <string>

namespace lmfusion {
namespace {

[[noreturn]] void Refuse(const WeightRows& rows, const std::string& expected) {
  std::ostringstream message;
  message << "packed matrix: a weight of type " << Name(rows.type) << " must be " << expected
          << ", got " << rows.data.sizes() << " of " << rows.data.dtype();
  throw std::invalid_argument(message.str());
}

int64_t InputsOf(const WeightRows& rows) {
  if (rows.data.dim() != 2 || rows.data.size(0) == 0 || rows.data.size(1) == 0) {
    Refuse(rows, "a matrix that is not empty");
  }
  const int64_t bytes = BlockBytes(rows.type);
  if (bytes == 0) {
    if (!at::isFloatingType(rows.data.scalar_type())) Refuse(rows, "of a floating type");
    return rows.data.size(1);
  }
  if (rows.data.scalar_type() != at::kByte || rows.data.size(1) % bytes != 0) {
    Refuse(rows, "uint8 rows of whole blocks");
  }
  return rows.data.size(1) / bytes * kBlockInputs;
}

// In a form that the kernels read: float32 or bfloat16 of any strides, or dense blocks.
at::Tensor Readable(const WeightRows& rows) {
  const at::Tensor data = rows.data.cpu();
  if (rows.type != WeightType::kFloat) return data.contiguous();
  const bool read = data.scalar_type() == at::kFloat || data.scalar_type() == at::kBFloat16;
  return read ? data : data.to(at::kFloat);
}

WeightMatrix MatrixOf(const at::Tensor& data, WeightType type, int64_t in) {
  const auto size = static_cast<int64_t>(data.element_size());
  WeightMatrix matrix;
  matrix.data = data.const_data_ptr();
  matrix.out = data.size(0);
  matrix.in = in;
  matrix.row_stride = data.stride(0) * size;
  matrix.stride = type == WeightType::kFloat ? data.stride(1) * size : BlockBytes(type);
  matrix.type = type;
  matrix.bfloat16 = data.scalar_type() == at::kBFloat16;
  return matrix;
}

at::Tensor FloatBias(const at::Tensor& bias, int64_t out) {
  if (bias.dim() != 1 || bias.numel() != out) {
    throw std::invalid_argument("packed matrix: a bias of " + std::to_string(out) +
                                " values expected, got " + std::to_string(bias.numel()));
  }
  return bias.to(at::kCPU, at::kFloat).contiguous();
}

}  // namespace

bool KeepsWeights(const WeightRows& rows, Compute compute) {
  return KeepsWeights(rows.type, rows.data.scalar_type() == at::kBFloat16, compute);
}

PackedWeight PackWeights(const std::vector<WeightRows>& stacked,
                         const std::optional<at::Tensor>& bias, Compute compute) {
  if (stacked.empty()) throw std::invalid_argument("packed matrix: no weight given");
  const at::NoGradGuard no_grad;
  const int64_t in = InputsOf(stacked[0]);
  std::vector<at::Tensor> memory;
  std::vector<WeightMatrix> matrices;
  int64_t out = 0;
  for (const WeightRows& rows : stacked) {
    if (InputsOf(rows) != in) {
      Refuse(rows, "as wide as the first of its stack (" + std::to_string(in) + ")");
    }
    memory.push_back(Readable(rows));
    matrices.push_back(MatrixOf(memory.back(), rows.type, in));
    matrices.back().read = rows.read;
    out += rows.data.size(0);
  }
  at::Tensor biases;
  if (bias) biases = FloatBias(*bias, out);
  return PackWeight(matrices, bias ? biases.const_data_ptr<float>() : nullptr, compute);
}

}  // namespace lmfusion
