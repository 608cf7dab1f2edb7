#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/attention/query_tiles.h"
#include "kernels/device/numbers.h"
#include "kernels/device/thread_block.h"

// The bodies of the tree attention kernels that run one thread block a query tile; see Note
// [Query tiles] and Note [One kernel body, two executors].
namespace lmfusion {

// An array [tokens, heads, head_dim] whose last dimension is dense.
struct HeadsView {
  const void* data = nullptr;
  int64_t token_stride = 0, head_stride = 0;  // elements
};

struct TiledAttention {
  HeadsView queries, keys, values;  // keys, values: of this batch, to be written to their slots
  NumberType activation = NumberType::kFloat32;  // of queries, keys, values and output
  const float* sinks = nullptr;                  // [query_heads] or null
  void* pool_keys = nullptr;                     // [slots, kv_heads, head_dim], this layer's
  void* pool_values = nullptr;
  NumberType pool = NumberType::kFloat32;
  const int64_t* positions = nullptr;  // [tokens]
  const int32_t* slots = nullptr;      // [tokens]
  const QueryTile* tiles = nullptr;    // [tile_count]
  const QueryKey* tile_keys = nullptr;
  float* part_values = nullptr;  // [parts, kv_heads, tile rows, head_dim]
  float* part_stats = nullptr;   // [parts, kv_heads, tile rows, 2]: largest score, sum
  void* output = nullptr;        // [tokens, query_heads, head_dim]
  int32_t tokens = 0, query_heads = 0, kv_heads = 0, head_dim = 0, tile_count = 0;
  float scale = 1;
  int32_t window = 0;  // 0: unlimited
  float softcap = 0;   // 0: none
};

LMFUSION_HOST_DEVICE float NegativeInfinity() { return FloatOf(0xff800000u); }

// Rows of the partial results of one tile and key/value head.
LMFUSION_HOST_DEVICE int PartRows(int group) { return TileTokens(group) * group; }

// A query: row `row` of a tile, for one key/value head.
struct Query {
  int32_t token, head;
};
LMFUSION_HOST_DEVICE Query QueryOf(const TiledAttention& a, const QueryTile& tile, int kv_head,
                                   int row) {
  const int group = a.query_heads / a.kv_heads;
  return {tile.token_begin + row / group, kv_head * group + row % group};
}
LMFUSION_HOST_DEVICE int Rows(const TiledAttention& a, const QueryTile& tile) {
  return (tile.token_end - tile.token_begin) * (a.query_heads / a.kv_heads);
}

LMFUSION_HOST_DEVICE bool Sees(const TiledAttention& a, int32_t token, int64_t position,
                               const QueryKey& key) {
  return key.token_begin <= token && token < key.token_end && key.position <= position &&
         (a.window == 0 || position - key.position < a.window);
}

LMFUSION_HOST_DEVICE float Score(const TiledAttention& a, float product) {
  const float score = product * a.scale;
  return a.softcap > 0 ? a.softcap * tanhf(score / a.softcap) : score;
}

// exp(score - largest), where both may be minus infinity.
LMFUSION_HOST_DEVICE float Weight(float score, float largest) {
  return score == NegativeInfinity() ? 0.0f : expf(score - largest);
}

// One over the sum of the weights, the sink's among them; 0 for a query that saw nothing.
LMFUSION_HOST_DEVICE float Inverse(const TiledAttention& a, int head, float largest, float sum) {
  if (sum > 0 && a.sinks != nullptr) sum += expf(a.sinks[head] - largest);
  return sum > 0 ? 1.0f / sum : 0.0f;
}

LMFUSION_HOST_DEVICE int64_t PartRow(const TiledAttention& a, int part, int kv_head, int row) {
  return (static_cast<int64_t>(part) * a.kv_heads + kv_head) *
             PartRows(a.query_heads / a.kv_heads) +
         row;
}

LMFUSION_HOST_DEVICE int64_t OutputIndex(const TiledAttention& a, const Query& query) {
  return (static_cast<int64_t>(query.token) * a.query_heads + query.head) * a.head_dim;
}

// Element `index` of the batch's keys and values, written to its slot. One thread an element.
LMFUSION_HOST_DEVICE void ScatterElement(const TiledAttention& a, int64_t index) {
  const int64_t width = static_cast<int64_t>(a.kv_heads) * a.head_dim;
  const int64_t token = index / width, rest = index % width;
  const int64_t head = rest / a.head_dim, d = rest % a.head_dim;
  const int64_t to = a.slots[token] * width + rest;
  StoreNumber(a.pool_keys, a.pool, to,
              LoadNumber(a.keys.data, a.activation,
                         token * a.keys.token_stride + head * a.keys.head_stride + d));
  StoreNumber(a.pool_values, a.pool, to,
              LoadNumber(a.values.data, a.activation,
                         token * a.values.token_stride + head * a.values.head_stride + d));
}

constexpr int kAttentionThreads = 128;

// Plain float32 arithmetic, for every type of pool and every device. Heads of up to kDims.
template <int kDims>
struct PlainShape {
  static constexpr int kRows = kDims <= 64 ? 64 : kDims <= 128 ? 32 : kDims <= 256 ? 16 : 8;
  static constexpr int kKeys = kDims <= 128 ? 32 : kDims <= 256 ? 16 : 8;
  static constexpr int kTeam = kAttentionThreads / kRows;  // threads of one row of the result
  struct Shared {
    float queries[kRows][kDims + 1];
    float tile[kKeys][kDims + 1];  // keys, then values
    float weights[kRows][kKeys + 1];
    float largest[kRows], sum[kRows], decay[kRows];
    QueryKey keys[kKeys];
  };
  struct State {
    float result[kDims / kTeam];
  };
};

template <int kDims, typename Kv>
struct PlainAttention {
  using Shape = PlainShape<kDims>;
  using Shared = typename Shape::Shared;
  using State = typename Shape::State;

  template <typename Threads>
  static LMFUSION_HOST_DEVICE void LoadTile(Threads& threads, const TiledAttention& a,
                                            const void* pool, int kv_head, int count,
                                            Shared& shared) {
    threads.ForEach([&](int thread, State&) {
      for (int i = thread; i < count * a.head_dim; i += kAttentionThreads) {
        const int key = i / a.head_dim, d = i % a.head_dim;
        const int64_t row = static_cast<int64_t>(shared.keys[key].slot) * a.kv_heads + kv_head;
        shared.tile[key][d] = ToFloat(static_cast<const Kv*>(pool)[row * a.head_dim + d]);
      }
    });
  }

  // The queries [first_row, first_row + kRows) of a tile.
  template <typename Threads>
  static LMFUSION_HOST_DEVICE void Run(Threads& threads, const TiledAttention& a,
                                       const QueryTile& work, int kv_head, int first_row,
                                       Shared& shared) {
    const int rows_left = Rows(a, work) - first_row;
    const int rows = rows_left < Shape::kRows ? rows_left : Shape::kRows;
    if (rows <= 0 || work.key_begin < 0) return;
    threads.ForEach([&](int thread, State& state) {
      for (int i = thread; i < rows * a.head_dim; i += kAttentionThreads) {
        const Query query = QueryOf(a, work, kv_head, first_row + i / a.head_dim);
        shared.queries[i / a.head_dim][i % a.head_dim] =
            LoadNumber(a.queries.data, a.activation,
                       query.token * a.queries.token_stride + query.head * a.queries.head_stride +
                           i % a.head_dim);
      }
      for (int row = thread; row < Shape::kRows; row += kAttentionThreads) {
        shared.largest[row] = NegativeInfinity();
        shared.sum[row] = 0;
      }
      for (float& value : state.result) value = 0;
    });
    for (int begin = work.key_begin; begin < work.key_end; begin += Shape::kKeys) {
      const int left = work.key_end - begin;
      const int count = left < Shape::kKeys ? left : Shape::kKeys;
      threads.Sync();  // the last key tile is used up
      threads.ForEach([&](int thread, State&) {
        if (thread < count) shared.keys[thread] = a.tile_keys[begin + thread];
      });
      threads.Sync();
      LoadTile(threads, a, a.pool_keys, kv_head, count, shared);
      threads.Sync();
      threads.ForEach([&](int thread, State&) {
        for (int i = thread; i < rows * Shape::kKeys; i += kAttentionThreads) {
          const int row = i / Shape::kKeys, key = i % Shape::kKeys;
          const Query query = QueryOf(a, work, kv_head, first_row + row);
          float score = NegativeInfinity();
          if (key < count && Sees(a, query.token, a.positions[query.token], shared.keys[key])) {
            float product = 0;
            for (int d = 0; d < a.head_dim; ++d) {
              product += shared.queries[row][d] * shared.tile[key][d];
            }
            score = Score(a, product);
          }
          shared.weights[row][key] = score;
        }
      });
      threads.Sync();
      LoadTile(threads, a, a.pool_values, kv_head, count, shared);
      threads.ForEach([&](int thread, State&) {
        if (thread >= rows) return;
        const float before = shared.largest[thread];
        float largest = before, sum = 0;
        for (int key = 0; key < Shape::kKeys; ++key) {
          largest = fmaxf(largest, shared.weights[thread][key]);
        }
        for (int key = 0; key < Shape::kKeys; ++key) {
          const float weight = Weight(shared.weights[thread][key], largest);
          shared.weights[thread][key] = weight;
          sum += weight;
        }
        const float decay = Weight(before, largest);
        shared.decay[thread] = decay;
        shared.largest[thread] = largest;
        shared.sum[thread] = shared.sum[thread] * decay + sum;
      });
      threads.Sync();
      threads.ForEach([&](int thread, State& state) {
        const int row = thread / Shape::kTeam;
        if (row >= rows) return;
        LMFUSION_UNROLL
        for (int i = 0; i < kDims / Shape::kTeam; ++i) {
          const int d = thread % Shape::kTeam + i * Shape::kTeam;
          if (d >= a.head_dim) break;
          float value = state.result[i] * shared.decay[row];
          for (int key = 0; key < count; ++key) {
            value += shared.weights[row][key] * shared.tile[key][d];
          }
          state.result[i] = value;
        }
      });
    }
    threads.Sync();
    threads.ForEach([&](int thread, State& state) {
      const int row = thread / Shape::kTeam;
      if (row >= rows) return;
      const Query query = QueryOf(a, work, kv_head, first_row + row);
      const float inverse = Inverse(a, query.head, shared.largest[row], shared.sum[row]);
      const int64_t part_row = PartRow(a, work.part, kv_head, first_row + row);
      if (work.part >= 0 && thread % Shape::kTeam == 0) {
        a.part_stats[part_row * 2] = shared.largest[row];
        a.part_stats[part_row * 2 + 1] = shared.sum[row];
      }
      LMFUSION_UNROLL
      for (int i = 0; i < kDims / Shape::kTeam; ++i) {
        const int d = thread % Shape::kTeam + i * Shape::kTeam;
        if (d >= a.head_dim) break;
        if (work.part >= 0) {
          a.part_values[part_row * a.head_dim + d] = state.result[i];
        } else {
          StoreNumber(a.output, a.activation, OutputIndex(a, query) + d, state.result[i] * inverse);
        }
      }
    });
  }
};

// Adds up the parts of one tile: element `index` of its rows x head_dim. One thread an element.
LMFUSION_HOST_DEVICE void MergeElement(const TiledAttention& a, const QueryTile& merge, int kv_head,
                                       int index) {
  const int row = index / a.head_dim, d = index % a.head_dim;
  const Query query = QueryOf(a, merge, kv_head, row);
  const int parts = merge.key_end;
  float largest = NegativeInfinity(), sum = 0, value = 0;
  for (int part = 0; part < parts; ++part) {
    largest = fmaxf(largest, a.part_stats[PartRow(a, merge.part + part, kv_head, row) * 2]);
  }
  for (int part = 0; part < parts; ++part) {
    const int64_t at = PartRow(a, merge.part + part, kv_head, row);
    const float weight = Weight(a.part_stats[at * 2], largest);
    sum += weight * a.part_stats[at * 2 + 1];
    value += weight * a.part_values[at * a.head_dim + d];
  }
  StoreNumber(a.output, a.activation, OutputIndex(a, query) + d,
              value * Inverse(a, query.head, largest, sum));
}

}  // namespace lmfusion
