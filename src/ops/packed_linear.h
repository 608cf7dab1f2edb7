#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/linear/panel_format.h"

namespace lmfusion {

// What a product is computed in; see Note [Packed matrices] in packed_linear.cpp.
enum class Compute {
  kFloat32,   // exact: float32 sums of float32 products with the weights as they were given
  kBFloat16,  // weights and activations rounded to bfloat16, float32 sums
  kInt8,      // 8-bit weights, a scale for each output; 8-bit activations, a scale for every 32;
              // float32 sums of these
  kInt4,      // 4-bit weights, a scale and a minimum for every 32, but blocks of 8 bits as kInt8
              // has them; activations as for kInt8
};
Compute ComputeByName(const std::string& name);  // "float32", "bfloat16", "int8", "int4";
                                                 // std::invalid_argument
const char* Name(Compute compute);

// How the rows of a weight tensor are written.
enum class WeightType {
  kFloat,  // float32 or bfloat16 [out, in]
  kQ4_0,   // GGUF blocks of 32 weights, uint8 [out, in / 32 * 18]
  kQ4_1,   // uint8 [out, in / 32 * 20]
  kQ8_0,   // uint8 [out, in / 32 * 34]
};
WeightType WeightTypeByName(const std::string& name);  // "float", "q4_0", "q4_1", "q8_0"

struct WeightRows {
  at::Tensor data;
  WeightType type = WeightType::kFloat;
};

// The weight (and bias) of a linear layer, packed once for the products of this machine's CPU.
// Immutable; all methods may be called from many threads. torchbind: lmfusion::PackedMatrix, with
// the operators
//   lmfusion::pack(Tensor[] weights, str[] types, Tensor? bias, str compute) -> PackedMatrix
//   lmfusion::linear(Tensor x, PackedMatrix w) -> Tensor
//   lmfusion::linear_add(Tensor x, PackedMatrix w, Tensor residual, float scale) -> Tensor
class PackedMatrix : public torch::CustomClassHolder {
 public:
  // `stacked`: matrices of equal width, one below the other (a single one as a rule). Blocks stay
  // as they are for kFloat32, and those of 4 bits for kInt4; other computations, and a stack of
  // several types, start from the float32 weights that they stand for.
  // bias: float32 [out], out being that of the whole stack. Throws std::invalid_argument.
  static c10::intrusive_ptr<PackedMatrix> Pack(const std::vector<WeightRows>& stacked,
                                               const std::optional<at::Tensor>& bias,
                                               Compute compute);

  int64_t out_features() const { return out_; }
  int64_t in_features() const { return in_; }
  Compute compute() const { return compute_; }
  const std::optional<at::Tensor>& bias() const { return bias_; }
  int64_t bytes() const;  // memory held, bias included

  // x [..., in] float32 -> [..., out] float32: x times the transposed weight, plus the bias.
  at::Tensor Multiply(const at::Tensor& x) const;
  // The same times `scale`, and `residual` [..., out] added, as other operators would (broadcast
  // too).
  at::Tensor MultiplyAdd(const at::Tensor& x, const at::Tensor& residual, float scale) const;
  // The same into memory of the caller: x [rows, in]; y, residual (may be null) [rows, out]; all
  // contiguous.
  void Multiply(const float* x, int64_t rows, float* y, const float* residual = nullptr,
                float scale = 1) const;

  // Rows of the weight (without bias): ids [...] int64 -> [..., in] float32.
  at::Tensor Rows(const at::Tensor& ids) const;
  // The whole weight: [out, in] float32.
  at::Tensor Dequantized() const;

  // How the weight is held: "float32", "bfloat16", "q4", "q8" or "int8".
  std::string format() const;

  PanelFormat panel_format() const { return format_; }
  const at::Tensor& panels() const { return panels_; }

  // What torch.save keeps: {compute, format, out, in}, panels, bias. Any machine can read it.
  using State = std::tuple<std::vector<int64_t>, at::Tensor, std::optional<at::Tensor>>;
  State state() const;
  static c10::intrusive_ptr<PackedMatrix> FromState(State state);

 private:
  PackedMatrix(Compute compute, PanelFormat format, int64_t out, int64_t in, at::Tensor panels,
               const std::optional<at::Tensor>& bias);

  Compute compute_;
  PanelFormat format_;
  int64_t out_, in_;
  at::Tensor panels_;  // uint8, see Note [Panels]
  std::optional<at::Tensor> bias_;
};

}  // namespace lmfusion
