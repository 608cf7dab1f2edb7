#include "ops/float_rows.h"

#include <ATen/ATen.h>

namespace lmfusion {

void CheckFloat(const char* name, const at::Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.device().is_cpu() && x.dim() > 0, name,
              ": float32 on the CPU expected, got ", x.toString(), " ", x.sizes());
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

}  // namespace lmfusion
