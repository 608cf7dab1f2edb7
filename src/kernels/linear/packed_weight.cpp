#include "kernels/linear/packed_weight.h"

#include <algorithm>

#include "kernels/linear/panel_products.h"
#include "kernels/linear/weight_blocks.h"
#include "kernels/threads/parallel.h"

namespace lmfusion {

int64_t PackedWeight::bytes() const {
  const int64_t biases = bias.empty() ? 0 : out;
  return PanelsOf(out) * panel_bytes() + biases * static_cast<int64_t>(sizeof(float));
}

void Multiply(const PackedWeight& weight, const float* x, int64_t rows, float* y,
              const float* residual, float scale, const RowNorm* norm) {
  if (rows == 0) return;
  PanelProducts products(weight, rows);
  products.Pack(x, norm);
  products.ComputeAll(y, residual, scale);
}

void ReadRows(const PackedWeight& weight, const int64_t* row_numbers, int64_t count, float* out) {
  ParallelFor(0, count, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ReadRow(weight.format, weight.panels.get(), weight.in, row_numbers[i], out + i * weight.in);
    }
  });
}

void Widen(const PackedWeight& weight, float* out) {
  const int64_t blocks = BlocksOf(weight.in);
  const auto widen = CurrentLinearKernels().widen;
  ParallelFor(0, PanelsOf(weight.out), 4, [&](int64_t begin, int64_t end) {
    std::vector<float> columns(blocks * kBlockInputs * kPanelOutputs);
    for (int64_t panel = begin; panel < end; ++panel) {
      widen(weight.format, weight.panels.get() + panel * weight.panel_bytes(), blocks, 0, blocks,
            columns.data());
      const int64_t rows = std::min(kPanelOutputs, weight.out - panel * kPanelOutputs);
      float* to = out + panel * kPanelOutputs * weight.in;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < weight.in; ++i) {
          to[r * weight.in + i] = columns[i * kPanelOutputs + r];
        }
      }
    }
  });
}

}  // namespace lmfusion
