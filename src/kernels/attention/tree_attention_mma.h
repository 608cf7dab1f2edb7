#pragma once

#include "kernels/attention/tree_attention_kernel.h"

namespace lmfusion {

// Tree attention with matrix instructions (compute capability 8.0 on) over a pool of 16 or 8 bit
// numbers; scores and sums are float32. Four warps of 16 queries each. Number: what is multiplied,
// Float16 for a pool of it, else BFloat16 (which holds every Float8).
template <int kDims, typename Kv, typename Number>
struct MatrixAttention {
  static constexpr int kKeys = kDims <= 128 ? 64 : 32;  // keys of a tile
  static constexpr int kPitch = kDims + 8;  // numbers from row to row: no bank conflicts

  struct Shared {
    alignas(16) Number key_tile[kKeys][kPitch];
    alignas(16) Number value_tile[kKeys][kPitch];
    QueryKey keys[kKeys];
  };
  struct State {
    uint32_t query[kDims / 16][4];
    uint32_t weight[4], right[2];
    float score[kKeys / 8][4];
    float result[kDims / 8][4];
    float largest[2], decay[2], sum[2];
    int32_t token[2];
    int64_t position[2];
  };

  // Two neighbouring numbers of a query; zeros for a row that is not there.
  static LMFUSION_HOST_DEVICE uint32_t QueryPair(const TiledAttention& a, const QueryTile& work,
                                                 int kv_head, int row, int rows, int d) {
    if (row >= rows) return 0;
    const Query query = QueryOf(a, work, kv_head, row);
    const int64_t at =
        query.token * a.queries.token_stride + query.head * a.queries.head_stride + d;
    return PackPair<Number>(LoadNumber(a.queries.data, a.activation, at),
                            LoadNumber(a.queries.data, a.activation, at + 1));
  }

  // Eight neighbouring numbers of the pool.
  static LMFUSION_HOST_DEVICE void CopyEight(const Kv* from, Number* to) {
    if constexpr (sizeof(Kv) == 2) {
#if defined(__CUDA_ARCH__)
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
#else
      std::memcpy(to, from, 16);
#endif
    } else {
      LMFUSION_UNROLL
      for (int i = 0; i < 8; ++i) to[i] = Convert<Number>::From(ToFloat(from[i]));
    }
  }

  template <typename Threads>
  static LMFUSION_HOST_DEVICE void LoadTiles(Threads& threads, const TiledAttention& a, int kv_head,
                                             int count, Shared& shared) {
    threads.ForEach([&](int thread, State&) {
      for (int i = thread; i < kKeys * (kDims / 8); i += kAttentionThreads) {
        const int key = i / (kDims / 8), d = i % (kDims / 8) * 8;
        if (key < count) {
          const int64_t row = static_cast<int64_t>(shared.keys[key].slot) * a.kv_heads + kv_head;
          CopyEight(static_cast<const Kv*>(a.pool_keys) + row * kDims + d,
                    &shared.key_tile[key][d]);
          CopyEight(static_cast<const Kv*>(a.pool_values) + row * kDims + d,
                    &shared.value_tile[key][d]);
        } else {  // a weight of 0 times anything that is finite
          LMFUSION_UNROLL
          for (int j = 0; j < 8; ++j) {
            shared.key_tile[key][d + j] = Number{0};
            shared.value_tile[key][d + j] = Number{0};
          }
        }
      }
    });
  }

  template <typename Threads>
  static LMFUSION_HOST_DEVICE void MultiplyQueries(Threads& threads, Shared& shared) {
    LMFUSION_UNROLL
    for (int j = 0; j < kKeys / 8; ++j) {
      threads.ForEach([&](int, State& state) {
        LMFUSION_UNROLL
        for (int i = 0; i < 4; ++i) state.score[j][i] = 0;
      });
      LMFUSION_UNROLL
      for (int k = 0; k < kDims / 16; ++k) {
        threads.ForEach([&](int thread, State& state) {
          const int lane = thread % 32;
          const Number* at = &shared.key_tile[j * 8 + lane / 4][k * 16 + lane % 4 * 2];
          state.right[0] = Pair(at);
          state.right[1] = Pair(at + 8);
        });
        threads.template MultiplyAdd<Number>([&](State& state) { return state.query[k]; },
                                             [](State& state) { return state.right; },
                                             [&](State& state) { return state.score[j]; });
      }
    }
  }

  static LMFUSION_HOST_DEVICE uint32_t Pair(const Number* at) {
#if defined(__CUDA_ARCH__)
    return *reinterpret_cast<const uint32_t*>(at);
#else
    return static_cast<uint32_t>(at[0].bits) | static_cast<uint32_t>(at[1].bits) << 16;
#endif
  }

  // Products to masked scores to weights, and what that does to the sums so far.
  template <typename Threads>
  static LMFUSION_HOST_DEVICE void UpdateSoftmax(Threads& threads, const TiledAttention& a,
                                                 int count, Shared& shared) {
    threads.ForEach([&](int thread, State& state) {
      // Old largest values wait in `decay` while the new ones are found.
      state.decay[0] = state.largest[0];
      state.decay[1] = state.largest[1];
      LMFUSION_UNROLL
      for (int j = 0; j < kKeys / 8; ++j) {
        LMFUSION_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int key = j * 8 + thread % 4 * 2 + i % 2;
          const bool sees =
              key < count && Sees(a, state.token[i / 2], state.position[i / 2], shared.keys[key]);
          const float score = sees ? Score(a, state.score[j][i]) : NegativeInfinity();
          state.score[j][i] = score;
          state.largest[i / 2] = fmaxf(state.largest[i / 2], score);
        }
      }
    });
    threads.QuadReduce([](State& state) { return state.largest; },
                       [](float x, float y) { return fmaxf(x, y); });
    threads.ForEach([&](int, State& state) {
      LMFUSION_UNROLL
      for (int i = 0; i < 2; ++i) {
        state.decay[i] = Weight(state.decay[i], state.largest[i]);
        state.sum[i] *= state.decay[i];
      }
      LMFUSION_UNROLL
      for (int j = 0; j < kKeys / 8; ++j) {
        LMFUSION_UNROLL
        for (int i = 0; i < 4; ++i) {
          state.score[j][i] = Weight(state.score[j][i], state.largest[i / 2]);
          state.sum[i / 2] += state.score[j][i];
        }
      }
      LMFUSION_UNROLL
      for (int n = 0; n < kDims / 8; ++n) {
        LMFUSION_UNROLL
        for (int i = 0; i < 4; ++i) state.result[n][i] *= state.decay[i / 2];
      }
    });
  }

  template <typename Threads>
  static LMFUSION_HOST_DEVICE void AddValues(Threads& threads, Shared& shared) {
    LMFUSION_UNROLL
    for (int k = 0; k < kKeys / 16; ++k) {
      threads.ForEach([&](int, State& state) {
        LMFUSION_UNROLL
        for (int i = 0; i < 4; ++i) {
          const float* score = &state.score[k * 2 + i / 2][i % 2 * 2];
          state.weight[i] = PackPair<Number>(score[0], score[1]);
        }
      });
      LMFUSION_UNROLL
      for (int n = 0; n < kDims / 8; ++n) {
        threads.LoadTransposed(
            [&](int thread) {
              return reinterpret_cast<const uint16_t*>(
                  &shared.value_tile[k * 16 + thread % 16][n * 8]);
            },
            [](State& state) { return state.right; });
        threads.template MultiplyAdd<Number>([](State& state) { return state.weight; },
                                             [](State& state) { return state.right; },
                                             [&](State& state) { return state.result[n]; });
      }
    }
  }

  template <typename Threads>
  static LMFUSION_HOST_DEVICE void Store(Threads& threads, const TiledAttention& a,
                                         const QueryTile& work, int kv_head, int first_row,
                                         int rows) {
    threads.QuadReduce([](State& state) { return state.sum; },
                       [](float x, float y) { return x + y; });
    threads.ForEach([&](int thread, State& state) {
      LMFUSION_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int row = first_row + thread / 32 * 16 + thread % 32 / 4 + half * 8;
        if (row >= rows) continue;
        const Query query = QueryOf(a, work, kv_head, row);
        const float inverse = Inverse(a, query.head, state.largest[half], state.sum[half]);
        const int64_t part_row = PartRow(a, work.part, kv_head, row);
        if (work.part >= 0 && thread % 4 == 0) {
          a.part_stats[part_row * 2] = state.largest[half];
          a.part_stats[part_row * 2 + 1] = state.sum[half];
        }
        LMFUSION_UNROLL
        for (int n = 0; n < kDims / 8; ++n) {
          LMFUSION_UNROLL
          for (int i = 0; i < 2; ++i) {
            const int d = n * 8 + thread % 4 * 2 + i;
            const float value = state.result[n][half * 2 + i];
            if (work.part >= 0) {
              a.part_values[part_row * kDims + d] = value;
            } else {
              StoreNumber(a.output, a.activation, OutputIndex(a, query) + d, value * inverse);
            }
          }
        }
      }
    });
  }

  // The queries [first_row, first_row + 64) of a tile.
  template <typename Threads>
  static LMFUSION_HOST_DEVICE void Run(Threads& threads, const TiledAttention& a,
                                       const QueryTile& work, int kv_head, int first_row,
                                       Shared& shared) {
    const int rows = Rows(a, work);
    if (first_row >= rows || work.key_begin < 0) return;
    threads.ForEach([&](int thread, State& state) {
      const int lane = thread % 32, row = first_row + thread / 32 * 16 + lane / 4;
      LMFUSION_UNROLL
      for (int k = 0; k < kDims / 16; ++k) {
        LMFUSION_UNROLL
        for (int i = 0; i < 4; ++i) {
          state.query[k][i] =
              QueryPair(a, work, kv_head, row + i % 2 * 8, rows, k * 16 + lane % 4 * 2 + i / 2 * 8);
        }
      }
      LMFUSION_UNROLL
      for (int half = 0; half < 2; ++half) {
        state.largest[half] = NegativeInfinity();
        state.sum[half] = 0;
        const bool there = row + half * 8 < rows;
        state.token[half] = there ? QueryOf(a, work, kv_head, row + half * 8).token : -1;
        state.position[half] = there ? a.positions[state.token[half]] : -1;
      }
      LMFUSION_UNROLL
      for (int n = 0; n < kDims / 8; ++n) {
        LMFUSION_UNROLL
        for (int i = 0; i < 4; ++i) state.result[n][i] = 0;
      }
    });
    for (int begin = work.key_begin; begin < work.key_end; begin += kKeys) {
      const int count = work.key_end - begin < kKeys ? work.key_end - begin : kKeys;
      threads.Sync();  // the last key tile is used up
      threads.ForEach([&](int thread, State&) {
        if (thread < count) shared.keys[thread] = a.tile_keys[begin + thread];
      });
      threads.Sync();
      LoadTiles(threads, a, kv_head, count, shared);
      threads.Sync();
      MultiplyQueries(threads, shared);
      UpdateSoftmax(threads, a, count, shared);
      AddValues(threads, shared);
    }
    Store(threads, a, work, kv_head, first_row, rows);
  }
};

}  // namespace lmfusion
