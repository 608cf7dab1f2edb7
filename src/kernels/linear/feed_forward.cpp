#include "kernels/linear/feed_forward.h"

#include <algorithm>

#include "kernels/linear/panel_products.h"
#include "kernels/threads/parallel.h"
#include "kernels/threads/scratch.h"

namespace lmfusion {
namespace {

// Note [Gates inside the product]
// The panels of a block of 32 inner numbers, two of gates and two of ups, are multiplied by one
// thread, which gates the results and packs them for the last product while they are in its first
// cache. So numbers that are as wide as a layer's inside never go to memory as floats, and threads
// meet twice in a layer instead of four times.

constexpr int64_t kPanelsOfBlock = kBlockInputs / kPanelOutputs;

class InnerBlocks {
 public:
  InnerBlocks(const FeedForwardLayer& layer, const PanelProducts& first, int64_t rows,
              PanelProducts* last)
      : first_(first),
        last_(last),
        gate_(CurrentRowKernels().gate[static_cast<int>(layer.activation)]),
        gated_(layer.gated),
        rows_(rows),
        inner_(layer.last.in) {}

  void ComputeAll() {
    ParallelFor(0, blocks(), grain(), [&](int64_t begin, int64_t end) { Compute(begin, end); });
  }

 private:
  int64_t sides() const { return gated_ ? 2 : 1; }
  int64_t blocks() const { return inner_ / kBlockInputs; }
  int64_t together() const { return std::max<int64_t>(1, first_.together() / kPanelsOfBlock); }
  int64_t grain() const {
    const int64_t share = first_.grain() / (sides() * kPanelsOfBlock);
    return std::max(together(), share / together() * together());
  }

  // Blocks [begin, end).
  void Compute(int64_t begin, int64_t end) {
    const int64_t columns = (end - begin) * kBlockInputs, width = sides() * columns;
    ChunkFloats memory(rows_ * width);
    float* const gates = memory.data();
    float* const ups = gated_ ? gates + columns : nullptr;
    const int64_t panel = begin * kPanelsOfBlock, panels = (end - begin) * kPanelsOfBlock;
    first_.Compute(panel, panels, gates, width);
    if (gated_) first_.Compute(inner_ / kPanelOutputs + panel, panels, ups, width);
    gate_({gates, width, ups, width, rows_, columns, gates, width});
    for (int64_t block = begin; block < end; ++block) {
      last_->PackBlock(block, gates + (block - begin) * kBlockInputs, width);
    }
  }

  const PanelProducts& first_;
  PanelProducts* const last_;
  void (*const gate_)(const GateRows&);
  const bool gated_;
  const int64_t rows_, inner_;
};

}  // namespace

bool FitFeedForward(const PackedWeight& first, const PackedWeight& last, bool gated) {
  return last.in % kBlockInputs == 0 && first.out == (gated ? 2 : 1) * last.in;
}

void FeedForward(const FeedForwardLayer& layer, const float* x, int64_t rows, float* y,
                 const float* residual, float scale) {
  if (rows == 0) return;
  PanelProducts first(layer.first, rows), last(layer.last, rows);
  first.Pack(x, layer.norm);
  InnerBlocks(layer, first, rows, &last).ComputeAll();
  last.FinishPacking();
  last.ComputeAll(y, residual, scale);
}

}  // namespace lmfusion
