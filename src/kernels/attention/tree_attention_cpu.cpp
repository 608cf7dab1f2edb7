#include "kernels/attention/tree_attention_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention/key_tile.h"
#include "kernels/attention/segments_of_tiles.h"
#include "kernels/threads/parallel.h"
#include "kernels/threads/scratch.h"

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
    const SegmentsOfTiles segments(b_.segments, b_.segment_count, b_.tokens, size);
    ParallelFor(0, tiles_of(size) * b_.kv_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t tile = item / b_.kv_heads, first = tile * size;
        AttendTokens({first, std::min(b_.tokens, first + size), item % b_.kv_heads,
                      segments.begin(tile), segments.begin(tile + 1)});
      }
    });
  }

 private:
  // The queries of tokens [first, last) that share one key/value head, and what they saw so far.
  struct Queries {
    int64_t first, last, kv_head;
    // Segments that any of them sees; of a token's, in the order of positions.
    const Segment *const *segments_begin, *const *segments_end;
    // Positions that any of them sees.
    int64_t lowest = std::numeric_limits<int64_t>::max(), highest = 0;
    std::vector<Softmax> softmax = {};  // [tokens][group]
  };

  void AttendTokens(Queries q) const {
    const int64_t first = q.first, last = q.last, kv_head = q.kv_head;
    q.softmax.resize((last - first) * group_);
    for (int64_t t = first; t < last; ++t) {
      const int64_t seen = b_.window > 0 ? std::min(b_.window, b_.positions[t] + 1) : 0;
      q.lowest = std::min(q.lowest, seen > 0 ? b_.positions[t] + 1 - seen : 0);
      q.highest = std::max(q.highest, b_.positions[t]);
      std::fill_n(Output(t, kv_head * group_), group_ * b_.head_dim, 0.0f);
    }
    const Scratch scratch((last - first) * group_ * kKeyStretch * int64_t{sizeof(float)});
    for (int64_t p = q.lowest / kKeyStretch * kKeyStretch; p <= q.highest; p += kKeyStretch) {
      AddStretch(p, scratch.As<float>(), &q);
    }
    for (int64_t t = first; t < last; ++t) {
      for (int64_t g = 0; g < group_; ++g) {
        Finish(t, kv_head * group_ + g, q.softmax[(t - first) * group_ + g]);
      }
    }
  }

  // The keys at positions [position, position + kKeyStretch).
  void AddStretch(int64_t position, float* scores, Queries* q) const {
    ForTiles(position, *q, scores, kernels_.multiply_keys);
    for (int64_t t = q->first; t < q->last; ++t) {
      const int64_t seen = b_.positions[t] - position + 1;
      const int64_t begin = b_.window > 0 ? std::max<int64_t>(0, seen - b_.window) : 0;
      const int64_t end = std::min<int64_t>(seen, kKeyStretch);
      if (begin >= end) continue;
      for (int64_t g = 0; g < group_; ++g) {
        const int64_t query = (t - q->first) * group_ + g;
        const float decay = kernels_.weigh({scores + query * kKeyStretch, static_cast<int>(begin),
                                            static_cast<int>(end), b_.scale, b_.softcap},
                                           &q->softmax[query]);
        float* output = Output(t, q->kv_head * group_ + g);
        if (decay != 0)
          std::transform(output, output + b_.head_dim, output,
                         [&](float value) { return value * decay; });
      }
    }
    ForTiles(position, *q, scores, kernels_.add_values);
  }

  // Calls kernel(tile) for the part of each segment that lies in a stretch.
  void ForTiles(int64_t position, const Queries& q, float* scores,
                void (*kernel)(const KeyTile&)) const {
    for (auto each = q.segments_begin; each != q.segments_end; ++each) {
      const Segment* const s = *each;
      const int64_t shift = s->first_position - s->key_begin;  // from key to position
      const int64_t begin = std::max<int64_t>(s->key_begin, position - shift);
      const int64_t end = std::min<int64_t>(s->key_end, position + kKeyStretch - shift);
      if (begin >= end) continue;
      const int64_t token = std::max<int64_t>(q.first, s->token_begin);
      KeyTile tile = TileOf(token, std::min<int64_t>(q.last, s->token_end), q.kv_head);
      tile.slots = b_.segment_slots + begin;
      tile.first_position = begin + shift;
      tile.keys_in_tile = static_cast<int>(end - begin);
      tile.scores =
          scores + (token - q.first) * group_ * kKeyStretch + tile.first_position - position;
      kernel(tile);
    }
  }

  // Without its keys.
  KeyTile TileOf(int64_t begin, int64_t end, int64_t kv_head) const {
    const int64_t head = kv_head * group_, part = kv_head * b_.head_dim;
    KeyTile tile{};
    tile.queries = b_.queries + (begin * b_.query_heads + head) * b_.head_dim;
    tile.outputs = Output(begin, head);
    tile.query_stride = b_.query_heads * b_.head_dim;
    tile.keys = b_.pool_keys + part;
    tile.values = b_.pool_values + part;
    tile.key_stride = stride_;
    tile.positions = b_.positions + begin;
    tile.tokens = static_cast<int>(end - begin);
    tile.group = static_cast<int>(group_);
    tile.dim = static_cast<int>(b_.head_dim);
    tile.window = b_.window;
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
