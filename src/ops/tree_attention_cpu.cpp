#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/simd/clones.h"
#include "kernels/simd/fast_exp.h"
#include "kernels/threads/parallel.h"
#include "ops/tree_attention.h"

namespace lmfusion {
namespace {

// Tokens of one piece of work: they share their reads of a key. Small batches are cut finer, since
// three or four pieces do not come out even on two threads.
constexpr int64_t kTokenBlock = 16, kSmallTokenBlock = 6;
constexpr int64_t kFewPieces = 16;
constexpr int kKeyTile = 64;  // keys scored before the running softmax is updated

struct Segment {
  int32_t key_begin, key_end, token_begin, token_end, first_position;
};

// The running softmax of one query: its largest score, its sum of exponentials relative to that.
struct Softmax {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

// Some tokens and a tile of keys that they may see, for the queries of one key/value head.
struct Tile {
  const float* queries;  // of the first token and the head's first query, [.][dim]
  float* outputs;        // beside them
  int64_t query_stride;  // from token to token
  const float* keys;     // the head's part of the pool
  const float* values;
  int64_t key_stride;        // from slot to slot
  const int32_t* slots;      // of the keys
  const int64_t* positions;  // of the tokens
  int tokens, group, dim;
  int64_t first_position;  // of the first key; the others follow one by one
  int keys_in_tile;
  int64_t window;
  float scale, softcap;
  Softmax* softmax;  // [tokens][group]
};

// Sixteen numbers: one AVX-512 register, two of AVX2, four of SSE.
typedef float Lanes __attribute__((vector_size(64)));
constexpr int kLanes = 16;

LMFUSION_INLINE Lanes LoadLanes(const float* p) {
  Lanes lanes;
  std::memcpy(&lanes, p, sizeof(lanes));
  return lanes;
}
LMFUSION_INLINE void StoreLanes(float* p, Lanes lanes) { std::memcpy(p, &lanes, sizeof(lanes)); }
LMFUSION_INLINE float SumOf(Lanes v) {
  typedef float Half __attribute__((vector_size(32)));
  typedef float Quarter __attribute__((vector_size(16)));
  Half halves[2];
  std::memcpy(halves, &v, sizeof(v));
  const Half half = halves[0] + halves[1];
  Quarter quarters[2];
  std::memcpy(quarters, &half, sizeof(half));
  const Quarter quarter = quarters[0] + quarters[1];
  return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

// kDim: the size of a head, a multiple of 16; 0: `dim`, whatever it is.
template <int kDim>
LMFUSION_INLINE void DotKeys(const Tile& t, const float* query, int first, int count,
                             float* scores) {
  for (int j = 0; j < count; ++j) {
    const float* key = t.keys + t.slots[first + j] * t.key_stride;
    if constexpr (kDim > 0) {
      Lanes sum = LoadLanes(query) * LoadLanes(key);
      for (int d = kLanes; d < kDim; d += kLanes) sum += LoadLanes(query + d) * LoadLanes(key + d);
      scores[j] = SumOf(sum);
    } else {
      float sum = 0;
      for (int d = 0; d < t.dim; ++d) sum += query[d] * key[d];
      scores[j] = sum;
    }
  }
}

// output = output * decay + sum_j weights[j] * value_j.
template <int kDim>
LMFUSION_INLINE void AddValues(const Tile& t, const float* weights, int first, int count,
                               float decay, float* output) {
  if constexpr (kDim > 0) {
    // As many sums as stay in registers at once.
    constexpr int kPart = kDim % 64 == 0 ? 64 : kDim % 48 == 0 ? 48 : 16;
    for (int part = 0; part < kDim; part += kPart) {
      Lanes sums[kPart / kLanes];
      for (int i = 0; i < kPart / kLanes; ++i) {
        sums[i] = LoadLanes(output + part + i * kLanes) * decay;
      }
      for (int j = 0; j < count; ++j) {
        const float* value = t.values + t.slots[first + j] * t.key_stride + part;
        for (int i = 0; i < kPart / kLanes; ++i) {
          sums[i] += weights[j] * LoadLanes(value + i * kLanes);
        }
      }
      for (int i = 0; i < kPart / kLanes; ++i) StoreLanes(output + part + i * kLanes, sums[i]);
    }
  } else {
    for (int d = 0; d < t.dim; ++d) output[d] *= decay;
    for (int j = 0; j < count; ++j) {
      const float* value = t.values + t.slots[first + j] * t.key_stride;
      for (int d = 0; d < t.dim; ++d) output[d] += weights[j] * value[d];
    }
  }
}

// Adds a tile to the running softmax of one query.
template <int kDim>
LMFUSION_INLINE void AddToQuery(const Tile& t, const float* query, int first, int count,
                                Softmax* softmax, float* output) {
  float scores[kKeyTile];
  DotKeys<kDim>(t, query, first, count, scores);
  float largest = softmax->largest;
  if (t.softcap > 0) {
    for (int j = 0; j < count; ++j) {
      scores[j] = t.softcap * std::tanh(scores[j] * t.scale / t.softcap);
    }
  } else {
    for (int j = 0; j < count; ++j) scores[j] *= t.scale;
  }
  for (int j = 0; j < count; ++j) largest = std::max(largest, scores[j]);
  const float decay = softmax->sum > 0 ? FastExp(softmax->largest - largest) : 0;
  float sum = softmax->sum * decay;
  for (int j = 0; j < count; ++j) {
    scores[j] = FastExp(scores[j] - largest);
    sum += scores[j];
  }
  AddValues<kDim>(t, scores, first, count, decay, output);
  *softmax = {largest, sum};
}

template <int kDim>
LMFUSION_INLINE void AddToTokens(const Tile& t) {
  const int dim = kDim > 0 ? kDim : t.dim;
  for (int token = 0; token < t.tokens; ++token) {
    const int64_t behind = t.positions[token] - t.first_position;  // of the token, in keys
    const auto end = static_cast<int>(std::min<int64_t>(t.keys_in_tile, behind + 1));
    int begin = 0;
    if (t.window > 0) begin = static_cast<int>(std::max<int64_t>(0, behind - t.window + 1));
    if (begin >= end) continue;
    for (int g = 0; g < t.group; ++g) {
      const int64_t row = token * t.query_stride + g * dim;
      AddToQuery<kDim>(t, t.queries + row, begin, end - begin, t.softmax + token * t.group + g,
                       t.outputs + row);
    }
  }
}

LMFUSION_CLONES
void AddTile(const Tile& tile) {
  switch (tile.dim) {
    case 64: return AddToTokens<64>(tile);
    case 80: return AddToTokens<80>(tile);
    case 96: return AddToTokens<96>(tile);
    case 128: return AddToTokens<128>(tile);
    case 256: return AddToTokens<256>(tile);
    default: return AddToTokens<0>(tile);
  }
}

class Kernel {
 public:
  Kernel(const TreeAttentionArguments& a, float* output)
      : a_(a),
        tokens_(a.queries.size(0)),
        query_heads_(a.queries.size(1)),
        kv_heads_(a.kv.size(3)),
        group_(query_heads_ / kv_heads_),
        head_dim_(static_cast<int>(a.kv.size(4))),
        stride_(kv_heads_ * head_dim_),
        pool_keys_(a.kv.data_ptr<float>() + a.layer * 2 * a.kv.stride(1)),
        pool_values_(pool_keys_ + a.kv.stride(1)),
        segments_(reinterpret_cast<const Segment*>(a.segments.data_ptr<int32_t>())),
        segment_count_(a.segments.size(0)),
        slots_(a.segment_slots.data_ptr<int32_t>()),
        output_(output) {}

  void Scatter() const {
    const int32_t* slots = a_.slots.data_ptr<int32_t>();
    const float* keys = a_.keys.data_ptr<float>();
    const float* values = a_.values.data_ptr<float>();
    for (int64_t t = 0; t < tokens_; ++t) {
      std::copy_n(keys + t * stride_, stride_, pool_keys_ + slots[t] * stride_);
      std::copy_n(values + t * stride_, stride_, pool_values_ + slots[t] * stride_);
    }
  }

  void Attend() const {
    const auto blocks_of = [&](int64_t size) { return (tokens_ + size - 1) / size; };
    const bool few = blocks_of(kTokenBlock) * kv_heads_ < kFewPieces;
    const int64_t size = few ? kSmallTokenBlock : kTokenBlock, blocks = blocks_of(size);
    ParallelFor(0, blocks * kv_heads_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        Block(item / kv_heads_ * size, size, item % kv_heads_);
      }
    });
  }

 private:
  // All queries of one block of tokens that share one key/value head.
  void Block(int64_t first, int64_t size, int64_t kv_head) const {
    const int64_t last = std::min(tokens_, first + size);
    std::vector<Softmax> softmax((last - first) * group_);
    for (int64_t t = first; t < last; ++t) {
      std::fill_n(Output(t, kv_head * group_), group_ * head_dim_, 0.0f);
    }
    for (int64_t s = 0; s < segment_count_; ++s) {
      const Segment& segment = segments_[s];
      const int64_t begin = std::max<int64_t>(first, segment.token_begin);
      const int64_t end = std::min<int64_t>(last, segment.token_end);
      if (begin >= end) continue;
      for (int key = segment.key_begin; key < segment.key_end; key += kKeyTile) {
        const int count = std::min(segment.key_end - key, kKeyTile);
        Softmax* const of_tokens = &softmax[(begin - first) * group_];
        AddTile(TileOf(segment, key, count, begin, end, kv_head, of_tokens));
      }
    }
    for (int64_t t = first; t < last; ++t) {
      for (int64_t g = 0; g < group_; ++g) {
        Finish(t, kv_head * group_ + g, softmax[(t - first) * group_ + g]);
      }
    }
  }

  Tile TileOf(const Segment& segment, int key, int count, int64_t begin, int64_t end,
              int64_t kv_head, Softmax* softmax) const {
    const int64_t head = kv_head * group_, part = kv_head * head_dim_;
    Tile tile;
    tile.queries = a_.queries.const_data_ptr<float>() + (begin * query_heads_ + head) * head_dim_;
    tile.outputs = Output(begin, head);
    tile.query_stride = query_heads_ * head_dim_;
    tile.keys = pool_keys_ + part;
    tile.values = pool_values_ + part;
    tile.key_stride = stride_;
    tile.slots = slots_ + key;
    tile.positions = a_.positions.const_data_ptr<int64_t>() + begin;
    tile.tokens = static_cast<int>(end - begin);
    tile.group = static_cast<int>(group_);
    tile.dim = head_dim_;
    tile.first_position = segment.first_position + key - segment.key_begin;
    tile.keys_in_tile = count;
    tile.window = a_.window;
    tile.scale = static_cast<float>(a_.scale);
    tile.softcap = static_cast<float>(a_.softcap);
    tile.softmax = softmax;
    return tile;
  }

  void Finish(int64_t token, int64_t head, const Softmax& softmax) const {
    float sum = softmax.sum;
    if (a_.sinks) sum += std::exp(a_.sinks->data_ptr<float>()[head] - softmax.largest);
    float* output = Output(token, head);
    for (int d = 0; d < head_dim_; ++d) output[d] /= sum;
  }

  float* Output(int64_t token, int64_t head) const {
    return output_ + (token * query_heads_ + head) * head_dim_;
  }

  const TreeAttentionArguments& a_;
  const int64_t tokens_, query_heads_, kv_heads_, group_;
  const int head_dim_;
  const int64_t stride_;  // floats from one slot's key to the next slot's
  float* const pool_keys_;
  float* const pool_values_;
  const Segment* const segments_;
  const int64_t segment_count_;
  const int32_t* const slots_;
  float* const output_;
};

}  // namespace

at::Tensor TreeAttentionCpu(const TreeAttentionArguments& arguments) {
  at::Tensor output = at::empty(arguments.queries.sizes(), arguments.queries.options());
  const Kernel kernel(arguments, output.data_ptr<float>());
  kernel.Scatter();
  kernel.Attend();
  return output;
}

void AttendCpu(const TreeAttentionArguments& arguments, float* output) {
  Kernel(arguments, output).Attend();
}

}  // namespace lmfusion
