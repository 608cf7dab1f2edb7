#include "ops/norm_weights.h"

#include <ATen/ATen.h>

namespace lmfusion {
namespace {

at::Tensor Dense(const char* name, const char* what, const std::optional<at::Tensor>& numbers,
                 int64_t width) {
  if (!numbers) return {};
  TORCH_CHECK(numbers->dim() == 1 && numbers->numel() == width &&
                  numbers->scalar_type() == at::kFloat && numbers->device().is_cpu(),
              name, ": float32 ", what, " [", width, "] on the CPU expected, got ",
              numbers->sizes(), " of ", numbers->dtype());
  return numbers->contiguous();
}

const float* DataOf(const at::Tensor& numbers) {
  return numbers.defined() ? numbers.const_data_ptr<float>() : nullptr;
}

}  // namespace

NormWeights::NormWeights(const char* name, const std::optional<at::Tensor>& weight,
                         const std::optional<at::Tensor>& bias, double epsilon, bool centered,
                         int64_t width)
    : weights(Dense(name, "weights", weight, width)),
      biases(Dense(name, "biases", bias, width)),
      of_rows{DataOf(weights), DataOf(biases), static_cast<float>(epsilon), centered} {}

}  // namespace lmfusion
