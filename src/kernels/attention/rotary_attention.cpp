#include "kernels/attention/rotary_attention.h"

#include <algorithm>
#include <vector>

#include "kernels/threads/parallel.h"

namespace lmfusion {
namespace {

constexpr int64_t kGrainElements = 1 << 14;  // of one chunk of the loop
constexpr int64_t kTokensAhead = 2;          // of those whose slots are asked for

// Asks for the memory of a token's slot, which was written long ago or never.
void PrefetchSlot(const TreeAttentionBatch& batch, int64_t token) {
  const int64_t width = batch.kv_heads * batch.head_dim, slot = batch.slots[token] * width;
  for (int64_t i = 0; i < width; i += 16) {
    __builtin_prefetch(batch.pool_keys + slot + i, 1);
    __builtin_prefetch(batch.pool_values + slot + i, 1);
  }
}

// `count` heads of one token; scratch: [dim].
void ApplyToHeads(const RowKernels& kernels, const HeadNorm& head_norm,
                  const HeadRotation& rotation, int64_t dim, int64_t count, const float* x,
                  float* scratch, float* y) {
  RowNorm norm = head_norm.of_first;
  for (int64_t head = 0; head < count; ++head, x += dim, y += dim) {
    const float* from = x;
    if (norm.weight) {
      float* to = rotation.n > 0 ? scratch : y;
      kernels.normalize(x, norm, dim, to);
      norm.weight += head_norm.weight_step;
      from = to;
    }
    if (rotation.n > 0) {
      kernels.rotate(from, rotation, dim, y);
    } else if (from == x) {
      std::copy_n(x, dim, y);
    }
  }
}

}  // namespace

void RotateToSlots(const HeadRotations& heads, const TreeAttentionBatch& batch, float* rotated) {
  const RowKernels& kernels = CurrentRowKernels();
  const int64_t dim = batch.head_dim;
  const int64_t width = batch.query_heads * dim, kv_width = batch.kv_heads * dim;
  const int64_t grain = std::max<int64_t>(1, kGrainElements / (width + 2 * kv_width));
  ParallelFor(0, batch.tokens, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(dim);
    for (int64_t t = begin; t < std::min(end, begin + kTokensAhead); ++t) PrefetchSlot(batch, t);
    for (int64_t t = begin; t < end; ++t) {
      if (t + kTokensAhead < end) PrefetchSlot(batch, t + kTokensAhead);
      HeadRotation rotation = heads.rotation;
      if (rotation.n > 0) {
        rotation.cos += t * rotation.n;
        rotation.sin += t * rotation.n;
      }
      const int64_t slot = batch.slots[t] * kv_width;
      ApplyToHeads(kernels, heads.query_norm, rotation, dim, batch.query_heads,
                   heads.queries.data + t * heads.queries.stride, scratch.data(),
                   rotated + t * width);
      ApplyToHeads(kernels, heads.key_norm, rotation, dim, batch.kv_heads,
                   heads.keys.data + t * heads.keys.stride, scratch.data(), batch.pool_keys + slot);
      std::copy_n(heads.values.data + t * heads.values.stride, kv_width, batch.pool_values + slot);
    }
  });
}

}  // namespace lmfusion
