#pragma once

#include <cstdint>

#include "kernels/device/numbers.h"
#include "kernels/linear/float32_loops.h"
#include "kernels/linear/nibble_bytes.h"

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
  ForNibbleRows(block, [&bytes](int row, I words) { bytes.bytes[row] = words; });
  return bytes;
}
inline WeightBytes BytesOf(const Int8Block& block) {
  WeightBytes bytes;
  for (int j = 0; j < 8; ++j) bytes.Set(j, LoadWords(block.words + j * kWordRowBytes));
  return bytes;
}

// Adds a block's products with a token's, whose words are `x`.
inline F AddScaled(const Int8Block&, I products, const uint32_t* x, F sum) {
  return MulAdd(ToFloat(products), Splat(FloatOf(x[8])), sum);
}
inline F AddScaled(const Q4Block& block, I products, const uint32_t* x, F sum) {
  return AddNibbleProducts(ToFloat(products), block.scale, block.minimum, Splat(FloatOf(x[8])),
                           Splat(FloatOf(x[9])), sum);
}

// Asks for token t's share of the lines of a block: all at once, they would stop the products.
template <class Block, int kTokens>
inline void PrefetchPart(const Block& block, int t) {
  constexpr int kLines = Block::kRows * Block::kRowLines;
  for (int line = t * kLines / kTokens; line < (t + 1) * kLines / kTokens; ++line) {
    Prefetch<1>(block.words + kPrefetchBytes + line * kWordRowBytes);
  }
}

// Adds the products of a block with all tokens to their sums, some tokens at once: the products of
// a token wait for each other.
template <class Block, int kTokens>
inline void AddBlock(const Block& block, const uint32_t* x, F (&sums)[kTokens]) {
  const auto bytes = BytesOf(block);
#pragma GCC unroll 16
  for (int first = 0; first < kTokens; first += kTokensInTurn) {
    const int n = static_cast<int>(Smaller(kTokensInTurn, kTokens - first));
    const uint32_t* words = x + first * kInt8BlockWords;
    I dots[kTokensInTurn];
#pragma GCC unroll 4
    for (int t = 0; t < n; ++t) {
      PrefetchPart<Block, kTokens>(block, first + t);
      dots[t] = SplatWord(0);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
#pragma GCC unroll 4
      for (int t = 0; t < n; ++t) {
        dots[t] = bytes.Dot(dots[t], j, SplatWord(words[t * kInt8BlockWords + j]));
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < n; ++t) {
      sums[first + t] = AddScaled(block, dots[t], words + t * kInt8BlockWords, sums[first + t]);
    }
  }
}

template <class Block, int kTokens>
void Int8Product(const PanelProduct& p) {
  constexpr bool kOneScale = Block::kFormat == PanelFormat::kInt8;
  const auto* excess =
      reinterpret_cast<const float*>(p.activations + p.blocks * kInt8BlockWords * kTokens);
  for (int64_t panel = 0; panel * kPanelOutputs < p.outputs; ++panel) {
    const uint8_t* weights = p.panels + panel * p.panel_bytes;
    F sums[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      sums[t] = kOneScale ? Splat(-WeightBytes::kAdded * excess[t]) : Zero();
    }
    for (int64_t b = 0; b < p.blocks; ++b) {
      AddBlock<Block, kTokens>(Block(weights, p.blocks, b),
                               p.activations + b * kInt8BlockWords * kTokens, sums);
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
