#include <memory>

#include "kernels/attention/tree_attention_dispatch.h"

namespace lmfusion {
namespace {

struct RunSerially {
  template <typename Body>
  void operator()(Body, int rows) const {
    for (int i = 0; i < a.tile_count; ++i) {
      for (int kv_head = 0; kv_head < a.kv_heads; ++kv_head) {
        for (int chunk = 0; chunk < RowChunks(a, rows); ++chunk) {
          auto shared = std::make_unique<typename Body::Shared>();
          SerialThreads<typename Body::State, kAttentionThreads> threads;
          Body::Run(threads, a, a.tiles[i], kv_head, chunk * rows, *shared);
        }
      }
    }
  }
  const TiledAttention& a;
};

}  // namespace

int64_t PartBytes(const TiledAttention& a) {
  const int64_t tiles = static_cast<int64_t>(a.tile_count) * a.kv_heads;
  if (tiles > kMaxSplitTiles) return 0;
  return tiles * PartRows(a.query_heads / a.kv_heads) * (a.head_dim + 2) *
         static_cast<int64_t>(sizeof(float));
}

void SetParts(void* memory, TiledAttention* a) {
  a->part_values = static_cast<float*>(memory);
  a->part_stats = a->part_values + static_cast<int64_t>(a->tile_count) * a->kv_heads *
                                       PartRows(a->query_heads / a->kv_heads) * a->head_dim;
}

bool FitsMatrixAttention(const TiledAttention& a) {
  const int d = a.head_dim;
  return a.pool != NumberType::kFloat32 && (d == 64 || d == 80 || d == 96 || d == 128 || d == 256);
}

void RunTreeAttentionSerially(const TiledAttention& a, bool matrix) {
  const int64_t elements = static_cast<int64_t>(a.tokens) * a.kv_heads * a.head_dim;
  for (int64_t i = 0; i < elements; ++i) ScatterElement(a, i);
  if (matrix) {
    ForMatrixAttention(a, RunSerially{a});
  } else {
    ForPlainAttention(a, RunSerially{a});
  }
  for (int i = 0; i < a.tile_count; ++i) {
    if (a.tiles[i].key_begin >= 0) continue;
    for (int kv_head = 0; kv_head < a.kv_heads; ++kv_head) {
      for (int j = 0; j < Rows(a, a.tiles[i]) * a.head_dim; ++j) {
        MergeElement(a, a.tiles[i], kv_head, j);
      }
    }
  }
}

}  // namespace lmfusion
