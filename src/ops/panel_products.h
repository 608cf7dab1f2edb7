#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear/linear_kernels.h"
#include "ops/packed_linear.h"

namespace lmfusion {

// The products of some rows of activations with any panels of a packed matrix: packs the
// activations once, and knows the kernels for this number of rows. Compute() may be called from
// many threads.
class PanelProducts {
 public:
  // x [rows, in]; copied. One object at a time on a thread (its memory is the thread's).
  PanelProducts(const PackedMatrix& matrix, const float* x, int64_t rows);

  // y[row * y_stride + i] for the outputs i of [first_panel, first_panel + panels), plus bias.
  void Compute(int64_t first_panel, int64_t panels, float* y, int64_t y_stride) const;

  // Panels that make a piece of work worth a thread's while.
  int64_t grain() const { return grain_; }

 private:
  struct TokenBlock {
    int64_t first;
    int tokens;
    const uint32_t* packed;
  };
  // Which kernels run, and what a panel is turned into before they do.
  enum class Path { kFloat32, kBFloat16, kInt8 };

  void ChoosePath(int64_t rows);
  void Pack(const float* x, int64_t rows);
  PanelKernel KernelFor(int tokens) const;

  const PackedMatrix& matrix_;
  const LinearKernels& kernels_;
  Path path_ = Path::kFloat32;
  bool round_ = false;   // activations as `compute` has them, before float32 products
  bool unpack_ = false;  // a panel into floats (or bfloat16) before the kernels run
  int64_t blocks_, panel_bytes_, grain_ = 1;
  std::vector<TokenBlock> token_blocks_;
};

// x rounded as products of this type see it: to bfloat16, to 8 bits, or not at all. In place.
void RoundActivations(Compute compute, float* x, int64_t rows, int64_t in);

}  // namespace lmfusion
