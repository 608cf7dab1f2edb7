#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/device/numbers.h"
#include "kernels/device/thread_block.h"
#include "kernels/output/log_sum.h"

// The bodies of the kernels behind ops/output_ops.h and ops/narrow_weights.h; see Note [One kernel
// body, two executors].
namespace lmfusion {

constexpr int kOutputThreads = 256;

struct OutputFormula {
  const float* bias = nullptr;  // [vocabulary] or null
  float scale = 1, softcap = 0;
};

LMFUSION_HOST_DEVICE float LogitOf(const OutputFormula& f, float product, int64_t word) {
  float logit = product;
  if (f.bias != nullptr) logit += f.bias[word];
  logit *= f.scale;
  return f.softcap != 0 ? f.softcap * tanhf(logit / f.softcap) : logit;
}

// One tile of the vocabulary: products [rows, words] of hidden states and output rows.
struct VocabularyTile {
  const float* products = nullptr;
  int64_t words = 0, first_word = 0;
  OutputFormula formula;
  const bool* subset = nullptr;  // [vocabulary] or null
  LogSum* sums = nullptr;        // [2, rows] (all words, the subset), carried from tile to tile
  int64_t rows = 0;
  float* results = nullptr;  // [2, rows] nats, written with the last tile; else null
};

struct LogSumState {
  LogSum all, some;
};

// Thread block: one row of a tile.
struct AddTileBody {
  struct Shared {
    LogSum all[kOutputThreads], some[kOutputThreads];
  };
  using State = LogSumState;

  template <typename Threads>
  static LMFUSION_HOST_DEVICE void Run(Threads& threads, const VocabularyTile& t, int64_t row,
                                       Shared& shared) {
    threads.ForEach([&](int thread, State& state) {
      state.all = state.some = EmptyLogSum();
      for (int64_t i = thread; i < t.words; i += kOutputThreads) {
        const float logit = LogitOf(t.formula, t.products[row * t.words + i], t.first_word + i);
        const LogSum one{logit, logit == logit ? 1.0f : logit};
        state.all = Combined(state.all, one);
        if (t.subset != nullptr && t.subset[t.first_word + i])
          state.some = Combined(state.some, one);
      }
      shared.all[thread] = state.all;
      shared.some[thread] = state.some;
    });
    for (int half = kOutputThreads / 2; half > 0; half /= 2) {
      threads.Sync();
      threads.ForEach([&](int thread, State&) {
        if (thread >= half) return;
        shared.all[thread] = Combined(shared.all[thread], shared.all[thread + half]);
        shared.some[thread] = Combined(shared.some[thread], shared.some[thread + half]);
      });
    }
    threads.ForEach([&](int thread, State&) {
      if (thread != 0) return;
      for (int part = 0; part < (t.subset != nullptr ? 2 : 1); ++part) {
        LogSum* sums = t.sums + part * t.rows + row;
        const LogSum tile = part == 0 ? shared.all[0] : shared.some[0];
        *sums = t.first_word == 0 ? tile : Combined(*sums, tile);
        if (t.results != nullptr) {
          t.results[part * t.rows + row] = ValueOf(*sums);
        }
      }
    });
  }
};

// One logit a row: hidden [rows, size] . weight[tokens[row]].
struct RowLogits {
  const void* hidden = nullptr;
  NumberType hidden_type = NumberType::kFloat32;
  const void* weight = nullptr;  // [vocabulary, size]
  NumberType weight_type = NumberType::kFloat32;
  const int64_t* tokens = nullptr;
  OutputFormula formula;
  float* results = nullptr;
  int64_t rows = 0, size = 0;
};

// Thread block: one row.
struct RowLogitBody {
  struct Shared {
    float sums[kOutputThreads];
  };
  struct State {};

  template <typename Threads>
  static LMFUSION_HOST_DEVICE void Run(Threads& threads, const RowLogits& r, int64_t row,
                                       Shared& shared) {
    threads.ForEach([&](int thread, State&) {
      float sum = 0;
      for (int64_t i = thread; i < r.size; i += kOutputThreads) {
        sum += LoadNumber(r.hidden, r.hidden_type, row * r.size + i) *
               LoadNumber(r.weight, r.weight_type, r.tokens[row] * r.size + i);
      }
      shared.sums[thread] = sum;
    });
    for (int half = kOutputThreads / 2; half > 0; half /= 2) {
      threads.Sync();
      threads.ForEach([&](int thread, State&) {
        if (thread < half) shared.sums[thread] += shared.sums[thread + half];
      });
    }
    threads.ForEach([&](int thread, State&) {
      if (thread == 0) r.results[row] = LogitOf(r.formula, shared.sums[0], r.tokens[row]);
    });
  }
};

// Weights of 4 bits, see kernels/linear/narrow_blocks.h.
struct QuantizedMatrix {
  const uint8_t* values = nullptr;  // [rows, columns / 2]
  const Float16* scales = nullptr;  // [rows, columns / group, 2]
  int64_t rows = 0, columns = 0, group = 0;
  BFloat16* result = nullptr;  // [rows, columns]
};

// Elements 2 * pair and 2 * pair + 1. One thread a pair.
LMFUSION_HOST_DEVICE void DequantizePair(const QuantizedMatrix& m, int64_t pair) {
  const int64_t first = 2 * pair;
  const int64_t row = first / m.columns, column = first % m.columns;
  const int64_t block = row * (m.columns / m.group) + column / m.group;
  const float scale = ToFloat(m.scales[2 * block]), minimum = ToFloat(m.scales[2 * block + 1]);
  const uint8_t byte = m.values[pair];
  m.result[first] = Convert<BFloat16>::From(static_cast<float>(byte & 15) * scale + minimum);
  m.result[first + 1] = Convert<BFloat16>::From(static_cast<float>(byte >> 4) * scale + minimum);
}

}  // namespace lmfusion
