#pragma once

#include <cstdint>

#include "kernels/device/numbers.h"
#include "kernels/linear/float32_loops.h"

namespace lmfusion {
namespace LMFUSION_SIMD {

// Products of blocks and activations of 8 bits.

struct NibbleBytes {
  I bytes[8];
  I Dot(I sum, int j, I input) const { return DotNibbles(sum, bytes[j], input); }
};

// The words of a block as bytes, four inputs a word.
inline NibbleBytes BytesOf(const Q4Block& block) {
  NibbleBytes bytes;
  for (int j = 0; j < 4; ++j) {
    const I words = LoadWords(block.words + j * kWordRowBytes);
    bytes.bytes[2 * j] = LowNibbles(words);
    bytes.bytes[2 * j + 1] = HighNibbles(words);
  }
  return bytes;
}
inline WeightBytes BytesOf(const Int8Block& block) {
  WeightBytes bytes;
  for (int j = 0; j < 8; ++j) bytes.Set(j, LoadWords(block.words + j * kWordRowBytes));
  return bytes;
}

// What WeightBytes::kAdded adds to each token's sum, with the sign changed.
template <int kTokens>
inline void Excess(const PanelProduct& p, float (&minus)[kTokens]) {
  for (int t = 0; t < kTokens; ++t) minus[t] = 0;
  if constexpr (WeightBytes::kAdded != 0) {
    for (int64_t b = 0; b < p.blocks; ++b) {
      const uint32_t* x = p.activations + (b * kInt8BlockWords + 9) * kTokens;
      for (int t = 0; t < kTokens; ++t) minus[t] -= WeightBytes::kAdded * FloatOf(x[t]);
    }
  }
}

// Asks for token t's share of the lines of a block: all at once, they would stop the products.
template <class Block, int kTokens>
inline void PrefetchPart(const Block& block, int t) {
  constexpr int kLines = Block::kRows * Block::kRowLines;
  for (int line = t * kLines / kTokens; line < (t + 1) * kLines / kTokens; ++line) {
    Prefetch<1>(block.words + kPrefetchBytes + line * kWordRowBytes);
  }
}

template <class Block, int kTokens>
void Int8Product(const PanelProduct& p) {
  constexpr bool kOneScale = Block::kFormat == PanelFormat::kInt8;
  float minus[kTokens];
  if constexpr (kOneScale) Excess<kTokens>(p, minus);
  for (int64_t panel = 0; panel * kPanelOutputs < p.outputs; ++panel) {
    const uint8_t* weights = p.panels + panel * p.panel_bytes;
    F sums[kTokens];
    for (int t = 0; t < kTokens; ++t) sums[t] = kOneScale ? Splat(minus[t]) : Zero();
    for (int64_t b = 0; b < p.blocks; ++b) {
      const Block block(weights, p.blocks, b);
      const uint32_t* x = p.activations + b * kInt8BlockWords * kTokens;
      const auto bytes = BytesOf(block);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        PrefetchPart<Block, kTokens>(block, t);
        I dot = SplatWord(0);
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) {
          dot = bytes.Dot(dot, j, SplatWord(x[j * kTokens + t]));
        }
        const F scale = Splat(FloatOf(x[8 * kTokens + t]));
        if constexpr (kOneScale) {
          sums[t] = MulAdd(ToFloat(dot), scale, sums[t]);
        } else {
          sums[t] = MulAdd(Mul(ToFloat(dot), scale), block.scale, sums[t]);
          sums[t] = MulAdd(block.minimum, Splat(FloatOf(x[9 * kTokens + t])), sums[t]);
        }
      }
    }
    if constexpr (kOneScale) {
      const F scale = Block(weights, p.blocks, 0).scale;
      for (int t = 0; t < kTokens; ++t) sums[t] = Mul(sums[t], scale);
    }
    WritePanel<kTokens>(p, panel, sums);
  }
}

template <class Block, int kTokens = kMaxInt8Tokens>
constexpr void AddInt8Kernels(LinearKernels* kernels) {
  if constexpr (kTokens > 0) {
    kernels->int8[static_cast<int>(Block::kFormat)][kTokens] = &Int8Product<Block, kTokens>;
    AddInt8Kernels<Block, kTokens - 1>(kernels);
  }
}

constexpr void AddInt8Kernels(LinearKernels* kernels) {
  kernels->max_int8_tokens = kMaxInt8Tokens;
  AddInt8Kernels<Q4Block>(kernels);
  AddInt8Kernels<Int8Block>(kernels);
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
