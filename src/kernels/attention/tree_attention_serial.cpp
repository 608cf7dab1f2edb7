#include <memory>

#include "kernels/attention/tree_attention_dispatch.h"

namespace lmfusion {
namespace {

struct RunSerially {
  template <typename Body>
  void operator()(Body, int rows) const {
    for (int i = 0; i < a.block_count; ++i) {
      for (int kv_head = 0; kv_head < a.kv_heads; ++kv_head) {
        for (int chunk = 0; chunk < RowChunks(a, rows); ++chunk) {
          auto shared = std::make_unique<typename Body::Shared>();
          SerialBlock<typename Body::State, kAttentionThreads> block;
          Body::Run(block, a, a.blocks[i], kv_head, chunk * rows, *shared);
        }
      }
    }
  }
  const BlockAttention& a;
};

}  // namespace

int64_t PartBytes(const BlockAttention& a) {
  const int64_t blocks = static_cast<int64_t>(a.block_count) * a.kv_heads;
  if (blocks > kMaxSplitBlocks) return 0;
  return blocks * PartRows(a.query_heads / a.kv_heads) * (a.head_dim + 2) *
         static_cast<int64_t>(sizeof(float));
}

void SetParts(void* memory, BlockAttention* a) {
  a->part_values = static_cast<float*>(memory);
  a->part_stats = a->part_values + static_cast<int64_t>(a->block_count) * a->kv_heads *
                                       PartRows(a->query_heads / a->kv_heads) * a->head_dim;
}

bool FitsMatrixAttention(const BlockAttention& a) {
  const int d = a.head_dim;
  return a.pool != NumberType::kFloat32 && (d == 64 || d == 80 || d == 96 || d == 128 || d == 256);
}

void RunTreeAttentionSerially(const BlockAttention& a, bool matrix) {
  const int64_t elements = static_cast<int64_t>(a.tokens) * a.kv_heads * a.head_dim;
  for (int64_t i = 0; i < elements; ++i) ScatterElement(a, i);
  if (matrix) {
    ForMatrixAttention(a, RunSerially{a});
  } else {
    ForPlainAttention(a, RunSerially{a});
  }
  for (int i = 0; i < a.block_count; ++i) {
    if (a.blocks[i].key_begin >= 0) continue;
    for (int kv_head = 0; kv_head < a.kv_heads; ++kv_head) {
      for (int j = 0; j < Rows(a, a.blocks[i]) * a.head_dim; ++j) {
        MergeElement(a, a.blocks[i], kv_head, j);
      }
    }
  }
}

}  // namespace lmfusion
