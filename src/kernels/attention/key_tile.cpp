#include "kernels/attention/key_tile.h"

#include "kernels/simd/exp.h"

namespace lmfusion {
namespace LMFUSION_SIMD {
namespace {

static_assert(kKeyStretch % kLanes == 0, "scores are worked on in whole vectors");

// The functions below are templates over kDim: the size of a head, a multiple of 16; or 0: `dim`,
// whatever it is.
template <int kDim>
inline void MultiplyKeys(const KeyTile& t, const float* query, int begin, int end, float* scores) {
  for (int j = begin; j < end; ++j) {
    const float* key = t.keys + t.slots[j] * t.key_stride;
    if constexpr (kDim > 0) {
      F sum = Mul(Load(query), Load(key));
      for (int d = kLanes; d < kDim; d += kLanes) sum = MulAdd(Load(query + d), Load(key + d), sum);
      scores[j] = SumOf(sum);
    } else {
      F sum = Zero();
      ForLanes(t.dim, [&](int64_t d, int64_t lanes) {
        sum = MulAdd(LoadUpTo(query + d, lanes), LoadUpTo(key + d, lanes), sum);
      });
      scores[j] = SumOf(sum);
    }
  }
}

// output += sum_j weights[j] * value_j.
template <int kDim>
inline void AddValues(const KeyTile& t, const float* weights, int begin, int end, float* output) {
  if constexpr (kDim > 0) {
    // As many sums as stay in registers at once.
    constexpr int kPart = kDim % 64 == 0 ? 64 : kDim % 48 == 0 ? 48 : 16;
    constexpr int kVectors = kPart / kLanes;
    for (int part = 0; part < kDim; part += kPart) {
      F sums[kVectors];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) sums[i] = Load(output + part + i * kLanes);
      for (int j = begin; j < end; ++j) {
        const float* value = t.values + t.slots[j] * t.key_stride + part;
        const F weight = Splat(weights[j]);
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) {
          sums[i] = MulAdd(weight, Load(value + i * kLanes), sums[i]);
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) Store(output + part + i * kLanes, sums[i]);
    }
  } else {
    ForLanes(t.dim, [&](int64_t d, int64_t lanes) {
      F sum = LoadUpTo(output + d, lanes);
      for (int j = begin; j < end; ++j) {
        const float* value = t.values + t.slots[j] * t.key_stride + d;
        sum = MulAdd(Splat(weights[j]), LoadUpTo(value, lanes), sum);
      }
      StoreUpTo(output + d, lanes, sum);
    });
  }
}

// body(query's row, its scores, begin, end) for every query that sees keys [begin, end) of the
// tile.
template <class Body>
inline void ForQueries(const KeyTile& t, int dim, Body body) {
  for (int token = 0; token < t.tokens; ++token) {
    const int64_t behind = t.positions[token] - t.first_position;  // of the token, in keys
    const auto end = static_cast<int>(Smaller(t.keys_in_tile, behind + 1));
    const auto begin = t.window > 0 ? static_cast<int>(Larger(0, behind - t.window + 1)) : 0;
    if (begin >= end) continue;
    for (int g = 0; g < t.group; ++g) {
      body(token * t.query_stride + g * dim, t.scores + (token * t.group + g) * kKeyStretch, begin,
           end);
    }
  }
}

template <int kDim>
void MultiplyKeysOf(const KeyTile& t) {
  ForQueries(t, kDim > 0 ? kDim : t.dim, [&](int64_t row, float* scores, int begin, int end) {
    MultiplyKeys<kDim>(t, t.queries + row, begin, end, scores);
  });
}

template <int kDim>
void AddValuesOf(const KeyTile& t) {
  ForQueries(t, kDim > 0 ? kDim : t.dim,
             [&](int64_t row, const float* weights, int begin, int end) {
               AddValues<kDim>(t, weights, begin, end, t.outputs + row);
             });
}

float Weigh(const QueryScores& q, Softmax* softmax) {
  const int first = q.begin / kLanes * kLanes;
  float* const scores = q.scores;
  F most = Splat(-kInfinity);
  for (int j = first; j < q.end; j += kLanes) {
    F score = Mul(Load(scores + j), Splat(q.scale));
    if (q.softcap > 0) score = SoftCapped(score, q.softcap);
    Store(scores + j, score);
    for (int k = j; k < q.begin; ++k) scores[k] = -kInfinity;
    for (int k = q.end; k < j + kLanes; ++k) scores[k] = -kInfinity;
    most = Max(Load(scores + j), most);
  }
  const float here = LargestOf(most);
  const float largest = here > softmax->largest ? here : softmax->largest;
  const float decay = softmax->sum > 0 ? ExpOf(softmax->largest - largest) : 0;
  F sum = Zero();
  for (int j = first; j < q.end; j += kLanes) {
    const F weight = Exp(Sub(Load(scores + j), Splat(largest)));  // about 0 of those not seen
    Store(scores + j, weight);
    sum = Add(sum, weight);
  }
  *softmax = {largest, softmax->sum * decay + SumOf(sum)};
  return decay;
}

template <int kSize>
struct HeadSize {
  static constexpr int kDim = kSize;
};

// Calls body(HeadSize<.>()) for heads of `dim`.
template <class Body>
inline void ForHeadSize(int dim, Body body) {
  switch (dim) {
    case 64: return body(HeadSize<64>());
    case 80: return body(HeadSize<80>());
    case 96: return body(HeadSize<96>());
    case 128: return body(HeadSize<128>());
    case 256: return body(HeadSize<256>());
    default: return body(HeadSize<0>());
  }
}

void MultiplyKeysOfTile(const KeyTile& tile) {
  ForHeadSize(tile.dim, [&](auto size) { MultiplyKeysOf<decltype(size)::kDim>(tile); });
}

void AddValuesOfTile(const KeyTile& tile) {
  ForHeadSize(tile.dim, [&](auto size) { AddValuesOf<decltype(size)::kDim>(tile); });
}

}  // namespace

const AttentionKernels kAttentionKernels = {&MultiplyKeysOfTile, &Weigh, &AddValuesOfTile};

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
