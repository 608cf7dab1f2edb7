#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/attention/query_tiles.h"
#include "tree/batch_plan.h"

namespace lmfusion {

// All index tensors of a forward pass as one buffer of int32, which goes to the device in one
// copy. Parts begin at multiples of 16 bytes; the keys come last, so that a buffer with room for
// more keys than a plan has is filled by a copy of its beginning.
struct PlanLayout {
  int64_t tokens = 0, tiles = 0, keys = 0;
  // Offsets, int32.
  int64_t positions_at() const { return Aligned(2 * tokens); }
  int64_t slots_at() const { return positions_at() + Aligned(2 * tokens); }
  int64_t tiles_at() const { return slots_at() + Aligned(tokens); }
  int64_t keys_at() const { return tiles_at() + Aligned(5 * tiles); }
  int64_t size() const { return keys_at() + 4 * keys; }

 private:
  static int64_t Aligned(int64_t count) { return (count + 3) / 4 * 4; }
};

// Views of such a buffer, as the traced forward takes them.
struct PlanTensors {
  at::Tensor tokens;     // [tokens] int64
  at::Tensor positions;  // [tokens] int64
  at::Tensor slots;      // [tokens] int32
  at::Tensor tiles;      // [tiles, 5] int32, QueryTile
  at::Tensor keys;       // [keys, 4] int32, QueryKey
};
PlanTensors ViewsOf(const at::Tensor& buffer, const PlanLayout& layout);

// The number of tokens (tiles) that a batch is padded to, so that few sizes come again and again:
// powers of two and the middles between them.
int64_t PaddedSize(int64_t count);

struct StagedPlan {
  PlanLayout layout;
  at::Tensor buffer;  // [layout.size()] int32 on the host
};

// padded_tokens: at least as many as there are. pad_tiles: tiles too are padded, with rows of no
// tokens. pinned: in memory that a device copies from by itself. A padding token is
// token 0 at position 0, written to `spare_slot`; it sees nothing.
StagedPlan StagePlan(const BatchPlan& plan, const QueryTileOptions& options, int64_t padded_tokens,
                     bool pad_tiles, SlotId spare_slot, bool pinned);

}  // namespace lmfusion
