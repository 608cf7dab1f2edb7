#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/device/numbers.h"
#include "kernels/linear/linear_kernels.h"
#include "kernels/simd/lanes.h"

namespace lmfusion {
namespace LMFUSION_SIMD {

// Packing of activations, see Note [Activations].

// out[i * tokens + t] = rows[t * stride + i] for i < count <= 16. Words of rows are readable up to
// the sixteenth.
inline void WriteColumns(const void* rows, int64_t stride, int tokens, int count, uint32_t* out) {
  for (int first = 0; first < tokens; first += 16) {
    const auto* some = static_cast<const uint32_t*>(rows) + first * stride;
    const int n = static_cast<int>(Smaller(tokens - first, 16));
    if (Transposed(some, stride, n, count, out + first, tokens)) continue;
    for (int t = 0; t < n; ++t) {
      uint32_t row[16];
      std::memcpy(row, some + t * stride, sizeof(row));
      for (int i = 0; i < count; ++i) out[i * tokens + first + t] = row[i];
    }
  }
}

// The 32 inputs of a token's block, zeros behind the last.
inline const float* BlockOf(const Activations& a, int token, int64_t block,
                            float (&rest)[kBlockInputs]) {
  const float* x = a.x + token * a.in + block * kBlockInputs;
  const int64_t left = a.in - block * kBlockInputs;
  if (left >= kBlockInputs) return x;
  for (int64_t i = 0; i < kBlockInputs; ++i) rest[i] = i < left ? x[i] : 0;
  return rest;
}

inline void PackFloat32(const Activations& a) {
  float rest[kMostTokens][kBlockInputs];
  for (int64_t b = 0; b < BlocksOf(a.in); ++b) {
    const float* x = a.x + b * kBlockInputs;
    int64_t stride = a.in;
    if (a.in - b * kBlockInputs < kBlockInputs) {
      for (int t = 0; t < a.tokens; ++t) BlockOf(a, t, b, rest[t]);
      x = rest[0];
      stride = kBlockInputs;
    }
    uint32_t* out = a.packed + b * kBlockInputs * a.tokens;
    WriteColumns(x, stride, a.tokens, 16, out);
    WriteColumns(x + 16, stride, a.tokens, 16, out + 16 * a.tokens);
  }
}

// The words of one token's block, see Note [Activations].
inline void QuantizeBlock(const float* x, uint32_t* words) {
  const F first = Load(x), second = Load(x + 16);
  const float largest = LargestMagnitude(first, second);
  const bool finite = largest < kInfinity;
  const bool empty = !finite || largest < 1e-30f;
  const F inverse = Splat(empty ? 0 : 127 / largest);
  const I low = empty ? SplatWord(0) : ToInt(Mul(first, inverse));
  const I high = empty ? SplatWord(0) : ToInt(Mul(second, inverse));
  StoreBytes(words, low);
  StoreBytes(words + 4, high);
  const int32_t sum = SumOf(low, high);
  const float scale = finite ? largest * (1.0f / 127) : __builtin_nanf("");
  words[8] = FloatBits(scale);
  words[9] = FloatBits(scale * static_cast<float>(sum));
}

inline void PackInt8(const Activations& a) {
  float rest[kBlockInputs];
  uint32_t words[kMostTokens][16];
  for (int64_t b = 0; b < BlocksOf(a.in); ++b) {
    for (int t = 0; t < a.tokens; ++t) QuantizeBlock(BlockOf(a, t, b, rest), words[t]);
    WriteColumns(words[0], 16, a.tokens, kInt8BlockWords,
                 a.packed + b * kInt8BlockWords * a.tokens);
  }
}

constexpr void AddActivations(LinearKernels* kernels) {
  kernels->pack_float32 = &PackFloat32;
  kernels->pack_int8 = &PackInt8;
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
