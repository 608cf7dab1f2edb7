#include "kernels/attention/key_tile.h"

#include "kernels/simd/exp.h"

namespace lmfusion {
namespace LMFUSION_SIMD {
namespace {

static_assert(kKeyTile % kLanes == 0, "scores are worked on in whole vectors");

// The functions below are templates over kDim: the size of a head, a multiple of 16; or 0: `dim`,
// whatever it is.
template <int kDim>
inline void DotKeys(const KeyTile& t, const float* query, int first, int count, float* scores) {
  for (int j = 0; j < count; ++j) {
    const float* key = t.keys + t.slots[first + j] * t.key_stride;
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

// output = output * decay + sum_j weights[j] * value_j.
template <int kDim>
inline void AddValues(const KeyTile& t, const float* weights, int first, int count, float decay,
                      float* output) {
  if constexpr (kDim > 0) {
    // As many sums as stay in registers at once.
    constexpr int kPart = kDim % 64 == 0 ? 64 : kDim % 48 == 0 ? 48 : 16;
    constexpr int kVectors = kPart / kLanes;
    for (int part = 0; part < kDim; part += kPart) {
      F sums[kVectors];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        sums[i] = Mul(Load(output + part + i * kLanes), Splat(decay));
      }
      for (int j = 0; j < count; ++j) {
        const float* value = t.values + t.slots[first + j] * t.key_stride + part;
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
      F sum = Mul(LoadUpTo(output + d, lanes), Splat(decay));
      for (int j = 0; j < count; ++j) {
        const float* value = t.values + t.slots[first + j] * t.key_stride + d;
        sum = MulAdd(Splat(weights[j]), LoadUpTo(value, lanes), sum);
      }
      StoreUpTo(output + d, lanes, sum);
    });
  }
}

// Scores [count] from products, in place; -inf behind the last. Returns the largest.
inline float ToScores(const KeyTile& t, int count, float* scores) {
  F largest = Splat(-kInfinity);
  for (int j = 0; j < count; j += kLanes) {
    F score = Mul(Load(scores + j), Splat(t.scale));
    if (t.softcap > 0) score = SoftCapped(score, t.softcap);
    Store(scores + j, score);
    for (int k = count; k < j + kLanes; ++k) scores[k] = -kInfinity;
    largest = Max(Load(scores + j), largest);
  }
  return LargestOf(largest);
}

// Adds keys [first, first + count) to the running softmax of one query.
template <int kDim>
inline void AddToQuery(const KeyTile& t, const float* query, int first, int count, Softmax* softmax,
                       float* output) {
  float scores[kKeyTile] = {};
  DotKeys<kDim>(t, query, first, count, scores);
  const float in_tile = ToScores(t, count, scores);
  const float largest = in_tile > softmax->largest ? in_tile : softmax->largest;
  const float decay = softmax->sum > 0 ? ExpOf(softmax->largest - largest) : 0;
  F sum = Zero();
  for (int j = 0; j < count; j += kLanes) {
    const F weight = Exp(Sub(Load(scores + j), Splat(largest)));  // about 0 behind the last
    Store(scores + j, weight);
    sum = Add(sum, weight);
  }
  AddValues<kDim>(t, scores, first, count, decay, output);
  *softmax = {largest, softmax->sum * decay + SumOf(sum)};
}

template <int kDim>
void AddToTokens(const KeyTile& t) {
  const int dim = kDim > 0 ? kDim : t.dim;
  for (int token = 0; token < t.tokens; ++token) {
    const int64_t behind = t.positions[token] - t.first_position;  // of the token, in keys
    const auto end = static_cast<int>(Smaller(t.keys_in_tile, behind + 1));
    int begin = 0;
    if (t.window > 0) begin = static_cast<int>(Larger(0, behind - t.window + 1));
    if (begin >= end) continue;
    for (int g = 0; g < t.group; ++g) {
      const int64_t row = token * t.query_stride + g * dim;
      AddToQuery<kDim>(t, t.queries + row, begin, end - begin, t.softmax + token * t.group + g,
                       t.outputs + row);
    }
  }
}

void AddTile(const KeyTile& tile) {
  switch (tile.dim) {
    case 64: return AddToTokens<64>(tile);
    case 80: return AddToTokens<80>(tile);
    case 96: return AddToTokens<96>(tile);
    case 128: return AddToTokens<128>(tile);
    case 256: return AddToTokens<256>(tile);
    default: return AddToTokens<0>(tile);
  }
}

}  // namespace

const AttentionKernels kAttentionKernels = {&AddTile};

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
