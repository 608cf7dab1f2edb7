#pragma once

#include <cstdint>

#include "kernels/linear/activation_loops.h"
#include "kernels/linear/float32_loops.h"
#include "kernels/linear/nibble_bytes.h"

namespace lmfusion {
namespace LMFUSION_SIMD {

// Products of bytes, many tokens with one stretch of weights after the other; see ByteStretches.
// The sums of a block stay in registers: its rows are unrolled, since GCC 12 keeps sums that are
// read after a loop twice, the second time in memory.

// Weights of four bits, one byte each, after the scales and minima of their block as floats.
struct NibbleRows {
  static constexpr int64_t kFirst = 2, kRows = 8, kWords = kInt8BlockWords;
  static I Multiply(I weights, I inputs) { return MulNibbles(weights, inputs); }
  static void Add(I weights, I inputs, I& sum) { AddNibbles(weights, inputs, sum); }
  static I Sum(I sum) { return SumOfHalves(sum); }
  static F Scaled(const uint8_t* block, F products, F scale, F scaled_sum, F total) {
    const auto* floats = reinterpret_cast<const float*>(block);
    return AddNibbleProducts(products, Load(floats), Load(floats + kLanes), scale, scaled_sum,
                             total);
  }
  static void Unpack(const uint8_t* panel, int64_t blocks, int64_t begin, int64_t end,
                     uint8_t* out) {
    for (int64_t b = begin; b < end; ++b, out += (kFirst + kRows) * kWordRowBytes) {
      const Q4Block block(panel, blocks, b);
      Store(reinterpret_cast<float*>(out), block.scale);
      Store(reinterpret_cast<float*>(out) + kLanes, block.minimum);
      UnpackNibbles(block, out + kFirst * kWordRowBytes);
    }
  }
};

// Weights of eight bits as pairs; their one scale an output is for the caller to multiply with.
struct PairRows {
  static constexpr int64_t kFirst = 0, kRows = 16, kWords = kPairBlockWords;
  static I Multiply(I weights, I inputs) { return MulPairs(weights, inputs); }
  static void Add(I weights, I inputs, I& sum) { AddPairs(weights, inputs, sum); }
  static I Sum(I sum) { return sum; }
  static F Scaled(const uint8_t*, F products, F scale, F, F total) {
    return MulAdd(products, scale, total);
  }
  static void Unpack(const uint8_t* panel, int64_t, int64_t begin, int64_t end, uint8_t* out) {
    const uint8_t* words = panel + begin * BlockBytes(PanelFormat::kInt8);
    for (int64_t b = begin; b < end; ++b, out += kRows * kWordRowBytes) {
      for (int row = 0; row < kRows / 2; ++row, words += kWordRowBytes) {
        const I bytes = WithoutExcess(LoadWords(words));
        StoreWords(out + row * kWordRowBytes, EvenBytes(bytes));
        StoreWords(out + (row + kRows / 2) * kWordRowBytes, OddBytes(bytes));
      }
    }
  }
};

template <class Rows, int kTokens>
void AddByteStretch(const StretchProduct& p) {
  constexpr int64_t kBlockBytes = (Rows::kFirst + Rows::kRows) * kWordRowBytes;
  const uint8_t *block = p.panels, *ahead = p.ahead;
  const uint32_t* x = p.activations;
  for (int64_t b = 0; b < p.blocks; ++b, block += kBlockBytes) {
    I sums[kTokens];
    const uint8_t* row = block + Rows::kFirst * kWordRowBytes;
#pragma GCC unroll 16
    for (int64_t i = 0; i < Rows::kRows; ++i, row += kWordRowBytes) {
      const I weights = LoadWords(row);
      __builtin_prefetch(ahead);
      ahead += p.ahead_step;
#pragma GCC unroll 24
      for (int t = 0; t < kTokens; ++t) {
        if (i == 0) {
          sums[t] = Rows::Multiply(weights, SplatWord(x[t * Rows::kWords + i]));
        } else {
          Rows::Add(weights, SplatWord(x[t * Rows::kWords + i]), sums[t]);
        }
      }
    }
    float* total = p.totals;
#pragma GCC unroll 24
    for (int t = 0; t < kTokens; ++t, total += kPanelOutputs) {
      const uint32_t* scales = x + t * Rows::kWords + Rows::kWords - 2;
      const F scale = Splat(FloatOf(scales[0])), scaled_sum = Splat(FloatOf(scales[1]));
      const F products = ToFloat(Rows::Sum(sums[t]));
      Store(total, Rows::Scaled(block, products, scale, scaled_sum, Load(total)));
    }
    x += Rows::kWords * kTokens;
  }
}

inline void PackPairs(const Activations& a) {
  uint32_t words[kLanes * kInt8BlockWords + 8] = {}, pairs[16];
  ForBlocks(a, [&](const float* const(&blocks)[kLanes], int n, int64_t first) {
    QuantizeBlocks(blocks, n, words);
    for (int i = 0; i < n; ++i) {
      const uint32_t* from = words + i * kInt8BlockWords;
      uint32_t* to = a.packed + (first + i) * kPairBlockWords;
      const I block = LoadWords(from);
      StoreWords(pairs, EvenBytes(block));  // of eight words; the others are not wanted
      std::memcpy(to, pairs, 8 * sizeof(uint32_t));
      StoreWords(pairs, OddBytes(block));
      std::memcpy(to + 8, pairs, 8 * sizeof(uint32_t));
      to[16] = from[8];
      to[17] = from[9];
    }
  });
}

template <class Rows, int kTokens = kMaxTokens>
constexpr void AddByteKernels(ByteStretches* stretches) {
  if constexpr (kTokens > 0) {
    stretches->kernels[kTokens] = &AddByteStretch<Rows, kTokens>;
    AddByteKernels<Rows, kTokens - 1>(stretches);
  }
}

template <class Rows>
constexpr ByteStretches ByteStretchesOf(int least_tokens, ActivationPacker activations) {
  ByteStretches stretches{};
  AddByteKernels<Rows>(&stretches);
  stretches.least_tokens = least_tokens;
  stretches.unpack = &Rows::Unpack;
  stretches.block_rows = Rows::kFirst + Rows::kRows;
  stretches.activations = activations;
  stretches.block_words = Rows::kWords;
  return stretches;
}

constexpr void AddByteStretches(LinearKernels* kernels) {
  kernels->q4_stretches = ByteStretchesOf<NibbleRows>(kLeastTokensOfNibbles, {&PackInt8, nullptr});
  kernels->int8_stretches = ByteStretchesOf<PairRows>(kLeastTokensOfBytes, {&PackPairs, nullptr});
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
