#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/device/numbers.h"
#include "kernels/linear/linear_kernels.h"
#include "kernels/simd/lanes.h"

namespace lmfusion {
namespace LMFUSION_SIMD {

// Packing of activations, see Note [Activations].

// out[i * tokens + t] = rows[t * stride + i] for i < 16.
inline void WriteColumns(const void* rows, int64_t stride, int tokens, uint32_t* out) {
  for (int first = 0; first < tokens; first += 16) {
    const auto* some = static_cast<const uint32_t*>(rows) + first * stride;
    const int n = static_cast<int>(Smaller(tokens - first, 16));
    if (Transposed(some, stride, n, out + first, tokens)) continue;
    for (int t = 0; t < n; ++t) {
      uint32_t row[16];
      std::memcpy(row, some + t * stride, sizeof(row));
      for (int i = 0; i < 16; ++i) out[i * tokens + first + t] = row[i];
    }
  }
}

// The 32 inputs of a token's block, zeros behind the last.
inline const float* BlockOf(const Activations& a, int token, int64_t block,
                            float (&rest)[kBlockInputs]) {
  const float* x = a.x + token * a.stride + (block - a.begin) * kBlockInputs;
  const int64_t left = a.in - block * kBlockInputs;
  if (left >= kBlockInputs) return x;
  for (int64_t i = 0; i < kBlockInputs; ++i) rest[i] = i < left ? x[i] : 0;
  return rest;
}

inline void PackFloat32(const Activations& a) {
  float rest[kMostTokens][kBlockInputs];
  for (int64_t b = a.begin; b < a.end; ++b) {
    const float* x = a.x + (b - a.begin) * kBlockInputs;
    int64_t stride = a.stride;
    if (a.in - b * kBlockInputs < kBlockInputs) {
      for (int t = 0; t < a.tokens; ++t) BlockOf(a, t, b, rest[t]);
      x = rest[0];
      stride = kBlockInputs;
    }
    uint32_t* out = a.packed + b * kBlockInputs * a.tokens;
    WriteColumns(x, stride, a.tokens, out);
    WriteColumns(x + 16, stride, a.tokens, out + 16 * a.tokens);
  }
}

// The words of n <= 16 blocks of 32 inputs, see Note [Activations]: words [n][kInt8BlockWords].
// Maxima and sums are taken of all of them together.
inline void QuantizeBlocks(const float* const (&blocks)[kLanes], int n, uint32_t* words) {
  I bits[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const float* x = blocks[i < n ? i : 0];
    bits[i] = LargerWords(MagnitudeBits(Load(x)), MagnitudeBits(Load(x + 16)));
  }
  const auto larger = [](auto a, auto b) { return LargerWords(a, b); };
  float largest[kLanes], inverse[kLanes], scale[kLanes];
  Store(largest, AsFloat(Folded(bits, larger)));
  for (int i = 0; i < kLanes; ++i) {
    inverse[i] = largest[i] < 1e-30f ? 0 : 127 / largest[i];
    scale[i] = largest[i] < kInfinity ? largest[i] * (1.0f / 127) : __builtin_nanf("");
  }
  I sums[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    sums[i] = SplatWord(0);
    if (i >= n) continue;
    I low = SplatWord(0), high = low;
    if (largest[i] < kInfinity) {
      low = ToInt(Mul(Load(blocks[i]), Splat(inverse[i])));
      high = ToInt(Mul(Load(blocks[i] + 16), Splat(inverse[i])));
    }
    StoreBytes(words + i * kInt8BlockWords, low);
    StoreBytes(words + i * kInt8BlockWords + 4, high);
    sums[i] = AddWords(low, high);
  }
  int32_t sum[kLanes];
  StoreWords(sum, Folded(sums, [](auto a, auto b) { return AddWords(a, b); }));
  for (int i = 0; i < n; ++i) {
    words[i * kInt8BlockWords + 8] = FloatBits(scale[i]);
    words[i * kInt8BlockWords + 9] = FloatBits(scale[i] * static_cast<float>(sum[i]));
  }
}

// Calls use(blocks, n, first) for the blocks of all tokens, n <= 16 at once, in the order of Note
// [Activations]; first: the number there of the first.
template <class Use>
inline void ForBlocks(const Activations& a, Use use) {
  float rest[kLanes][kBlockInputs];
  const float* blocks[kLanes];
  int64_t block = a.begin;
  int token = 0;
  for (int64_t first = a.begin * a.tokens; first < a.end * a.tokens; first += kLanes) {
    const int n = static_cast<int>(Smaller(kLanes, a.end * a.tokens - first));
    for (int i = 0; i < n; ++i) {
      blocks[i] = BlockOf(a, token, block, rest[i]);
      if (++token < a.tokens) continue;
      token = 0;
      ++block;
    }
    use(blocks, n, first);
  }
}

inline void PackInt8(const Activations& a) {
  ForBlocks(a, [&a](const float* const(&blocks)[kLanes], int n, int64_t first) {
    QuantizeBlocks(blocks, n, a.packed + first * kInt8BlockWords);
  });
}

inline void FinishInt8(uint32_t* packed, int64_t blocks, int tokens) {
  float sums[kMostTokens] = {};
  for (int64_t b = 0; b < blocks; ++b) {
    for (int t = 0; t < tokens; ++t, packed += kInt8BlockWords) sums[t] += FloatOf(packed[9]);
  }
  std::memcpy(packed, sums, tokens * sizeof(float));
}

constexpr void AddActivations(LinearKernels* kernels) {
  kernels->float32_activations = {&PackFloat32, nullptr};
  kernels->int8_activations = {&PackInt8, &FinishInt8};
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
