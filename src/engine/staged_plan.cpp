#include "engine/staged_plan.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

namespace lmfusion {

PlanTensors ViewsOf(const at::Tensor& buffer, const PlanLayout& layout) {
  const auto part = [&](int64_t at, int64_t count) { return buffer.narrow(0, at, count); };
  PlanTensors views;
  views.tokens = part(0, 2 * layout.tokens).view(at::kLong);
  views.positions = part(layout.positions_at(), 2 * layout.tokens).view(at::kLong);
  views.slots = part(layout.slots_at(), layout.tokens);
  views.tiles = part(layout.tiles_at(), 5 * layout.tiles).view({layout.tiles, 5});
  views.keys = part(layout.keys_at(), 4 * layout.keys).view({layout.keys, 4});
  return views;
}

int64_t PaddedSize(int64_t count) {
  int64_t size = 16;
  while (size < count) size = size % 3 == 0 ? size / 3 * 4 : size / 2 * 3;
  return size;
}

StagedPlan StagePlan(const BatchPlan& plan, const QueryTileOptions& options, int64_t padded_tokens,
                     bool pad_tiles, SlotId spare_slot, bool pinned) {
  QueryTiles tiles = TileQueries(plan.segments.data(), static_cast<int64_t>(plan.segments.size()),
                                 plan.segment_slots.data(), plan.positions.data(), plan.size(),
                                 padded_tokens, options);
  if (pad_tiles) {
    tiles.tiles.resize(PaddedSize(static_cast<int64_t>(tiles.tiles.size())), {0, 0, 0, 0, -1});
  }
  StagedPlan staged;
  staged.layout.tokens = padded_tokens;
  staged.layout.tiles = static_cast<int64_t>(tiles.tiles.size());
  staged.layout.keys = static_cast<int64_t>(tiles.keys.size());
  const PlanLayout& layout = staged.layout;
  staged.buffer = at::empty({layout.size()}, at::TensorOptions(at::kInt).pinned_memory(pinned));
  int32_t* data = staged.buffer.data_ptr<int32_t>();
  const auto copy = [data](int64_t at, const auto& values) {
    if (!values.empty()) std::memcpy(data + at, values.data(), values.size() * sizeof(values[0]));
  };
  std::memset(data, 0, layout.tiles_at() * sizeof(int32_t));
  std::fill_n(data + layout.slots_at(), padded_tokens, spare_slot);
  copy(0, plan.tokens);
  copy(layout.positions_at(), plan.positions);
  copy(layout.slots_at(), plan.slots);
  copy(layout.tiles_at(), tiles.tiles);
  copy(layout.keys_at(), tiles.keys);
  return staged;
}

}  // namespace lmfusion
