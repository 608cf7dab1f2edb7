#include "ops/float_rows.h"

#include <ATen/ATen.h>

#include <cmath>

namespace lmfusion {

void CheckFloat(const char* name, const at::Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.device().is_cpu() && x.dim() > 0, name,
              ": float32 on the CPU expected, got ", x.toString(), " ", x.sizes());
}

void CheckActivations(const char* name, const at::Tensor& x, int64_t in) {
  TORCH_CHECK(
      x.dim() > 0 && x.size(-1) == in && x.scalar_type() == at::kFloat && x.device().is_cpu(), name,
      ": float32 activations [..., ", in, "] on the CPU expected, got ", x.sizes(), " of ",
      x.dtype());
}

FloatRows::FloatRows(const at::Tensor& x) : memory(x), width(x.size(-1)), stride(width) {
  if (!x.is_contiguous()) {
    memory = x.dim() > 1 ? x.flatten(0, -2) : x.unsqueeze(0);
    if (memory.stride(1) != 1 && width > 1) memory = memory.contiguous();
    stride = memory.stride(0);
  }
  count = width == 0 ? 0 : memory.numel() / width;
  data = memory.const_data_ptr<float>();
}

bool StoreRows(const at::Tensor& rows, const at::Tensor& numbers, const at::Tensor& to) {
  const FloatRows from(rows);
  const at::Tensor places = numbers.contiguous();
  const int32_t* place = places.const_data_ptr<int32_t>();
  TORCH_CHECK(to.is_contiguous() && to.dim() == 2 && to.size(1) == from.width &&
                  places.numel() == from.count,
              "store_rows: ", rows.sizes(), " do not go to ", numbers.sizes(), " rows of ",
              to.sizes());
  float* const kept = to.data_ptr<float>();
  bool finite = true;
  for (int64_t row = 0; row < from.count; ++row) {
    TORCH_CHECK_INDEX(place[row] >= 0 && place[row] < to.size(0), "store_rows: row ", place[row],
                      " of ", to.size(0));
    const float* x = from.data + row * from.stride;
    float* y = kept + place[row] * from.width;
    for (int64_t i = 0; i < from.width; ++i) {
      finite &= std::isfinite(x[i]);
      y[i] = x[i];
    }
  }
  return finite;
}

}  // namespace lmfusion
