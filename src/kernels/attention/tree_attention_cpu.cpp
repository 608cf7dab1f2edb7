#include "kernels/attention/tree_attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention/key_tile.h"
#include "kernels/threads/parallel.h"

namespace lmfusion {
namespace {

// Tokens that share their reads of a key. Small batches are cut finer, since three or four tiles do
// not come out even on two threads.
constexpr int64_t kTokenTile = 16, kSmallTokenTile = 6;
constexpr int64_t kFewTiles = 16;

class TreeAttention {
 public:
  TreeAttention(const TreeAttentionBatch& batch, float* output)
      : b_(batch),
        kernels_(CurrentAttentionKernels()),
        group_(batch.query_heads / batch.kv_heads),
        stride_(batch.kv_heads * batch.head_dim),
        output_(output) {}

  void Attend() const {
    const auto tiles_of = [&](int64_t size) { return (b_.tokens + size - 1) / size; };
    const bool few = tiles_of(kTokenTile) * b_.kv_heads < kFewTiles;
    const int64_t size = few ? kSmallTokenTile : kTokenTile;
    ParallelFor(0, tiles_of(size) * b_.kv_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t first = item / b_.kv_heads * size;
        AttendTokens(first, std::min(b_.tokens, first + size), item % b_.kv_heads);
      }
    });
  }

 private:
  // All queries of the tokens [first, last) that share one key/value head.
  void AttendTokens(int64_t first, int64_t last, int64_t kv_head) const {
    std::vector<Softmax> softmax((last - first) * group_);
    for (int64_t t = first; t < last; ++t) {
      std::fill_n(Output(t, kv_head * group_), group_ * b_.head_dim, 0.0f);
    }
    for (int64_t s = 0; s < b_.segment_count; ++s) {
      const Segment& segment = b_.segments[s];
      const int64_t begin = std::max<int64_t>(first, segment.token_begin);
      const int64_t end = std::min<int64_t>(last, segment.token_end);
      if (begin >= end) continue;
      for (int key = segment.key_begin; key < segment.key_end; key += kKeyTile) {
        const int count = std::min(segment.key_end - key, kKeyTile);
        Softmax* const of_tokens = &softmax[(begin - first) * group_];
        kernels_.add_tile(TileOf(segment, key, count, begin, end, kv_head, of_tokens));
      }
    }
    for (int64_t t = first; t < last; ++t) {
      for (int64_t g = 0; g < group_; ++g) {
        Finish(t, kv_head * group_ + g, softmax[(t - first) * group_ + g]);
      }
    }
  }

  KeyTile TileOf(const Segment& segment, int key, int count, int64_t begin, int64_t end,
                 int64_t kv_head, Softmax* softmax) const {
    const int64_t head = kv_head * group_, part = kv_head * b_.head_dim;
    KeyTile tile;
    tile.queries = b_.queries + (begin * b_.query_heads + head) * b_.head_dim;
    tile.outputs = Output(begin, head);
    tile.query_stride = b_.query_heads * b_.head_dim;
    tile.keys = b_.pool_keys + part;
    tile.values = b_.pool_values + part;
    tile.key_stride = stride_;
    tile.slots = b_.segment_slots + key;
    tile.positions = b_.positions + begin;
    tile.tokens = static_cast<int>(end - begin);
    tile.group = static_cast<int>(group_);
    tile.dim = static_cast<int>(b_.head_dim);
    tile.first_position = segment.first_position + key - segment.key_begin;
    tile.keys_in_tile = count;
    tile.window = b_.window;
    tile.scale = b_.scale;
    tile.softcap = b_.softcap;
    tile.softmax = softmax;
    return tile;
  }

  void Finish(int64_t token, int64_t head, const Softmax& softmax) const {
    float sum = softmax.sum;
    if (b_.sinks) sum += std::exp(b_.sinks[head] - softmax.largest);
    float* output = Output(token, head);
    for (int64_t d = 0; d < b_.head_dim; ++d) output[d] /= sum;
  }

  float* Output(int64_t token, int64_t head) const {
    return output_ + (token * b_.query_heads + head) * b_.head_dim;
  }

  const TreeAttentionBatch& b_;
  const AttentionKernels& kernels_;
  const int64_t group_;   // query heads a key/value head
  const int64_t stride_;  // floats from one slot's key to the next slot's
  float* const output_;
};

}  // namespace

void Scatter(const TreeAttentionBatch& batch, const float* keys, const float* values) {
  const int64_t width = batch.kv_heads * batch.head_dim;
  for (int64_t t = 0; t < batch.tokens; ++t) {
    std::copy_n(keys + t * width, width, batch.pool_keys + batch.slots[t] * width);
    std::copy_n(values + t * width, width, batch.pool_values + batch.slots[t] * width);
  }
}

void Attend(const TreeAttentionBatch& batch, float* output) {
  TreeAttention(batch, output).Attend();
}

}  // namespace lmfusion
