#pragma once

#include <cstdint>

#include "kernels/linear/linear_kernels.h"
#include "kernels/simd/lanes.h"

namespace lmfusion {
namespace LMFUSION_SIMD {

// The loops of the linear kernels over sixteen lanes, see Note [Lanes]. kTokens is the number of
// tokens of a kernel: their sums live in registers.

// Weights are read once, in order. The CPU's own prefetching stays too close behind where each
// line takes many operations, so lines this many bytes ahead are asked for; at the end of a panel
// those are the next one's.
constexpr int64_t kPrefetchBytes = 8192;
template <int kLines>
inline void Prefetch(const uint8_t* words) {
  for (int i = 0; i < kLines; ++i) __builtin_prefetch(words + i * kWordRowBytes);
}
// Of a place in a panel, `done` bytes behind its beginning, that is read beside others.
template <int kPanels>
inline int64_t PrefetchDistance(const PanelProduct& p, int64_t done) {
  constexpr int64_t kDistance = kPrefetchBytes / kPanels;
  return done + kDistance < p.panel_bytes ? kDistance : kDistance + (kPanels - 1) * p.panel_bytes;
}

// Formats: a block's words, each row of which holds kPerRow inputs of every output.
struct Float32Block {
  static constexpr PanelFormat kFormat = PanelFormat::kFloat32;
  static constexpr int kRows = 8, kPerRow = 4, kRowLines = 4;
  const uint8_t* words;
  Float32Block() = default;
  Float32Block(const uint8_t* panel, int64_t, int64_t block)
      : words(panel + block * BlockBytes(kFormat)) {}
  template <int i>
  F Weight(int row) const {
    return AsFloat(LoadWords(words + (4 * row + i) * kWordRowBytes));
  }
};

struct BFloat16Block {
  static constexpr PanelFormat kFormat = PanelFormat::kBFloat16;
  static constexpr int kRows = 8, kPerRow = 4, kRowLines = 2;
  const uint8_t* words;
  BFloat16Block() = default;
  BFloat16Block(const uint8_t* panel, int64_t, int64_t block)
      : words(panel + block * BlockBytes(kFormat)) {}
  template <int i>
  F Weight(int row) const {
    const I pair = LoadWords(words + (2 * row + i / 2) * kWordRowBytes);
    return i % 2 == 0 ? LowHalf(pair) : HighHalf(pair);
  }
};

struct Q4Block {
  static constexpr PanelFormat kFormat = PanelFormat::kQ4;
  static constexpr int kRows = 4, kPerRow = 8, kRowLines = 1;
  const uint8_t* words;
  F scale, minimum;
  Q4Block() = default;
  Q4Block(const uint8_t* panel, int64_t, int64_t block) {
    const uint8_t* begin = panel + block * BlockBytes(kFormat);
    scale = LoadHalf(begin);
    minimum = LoadHalf(begin + 2 * kPanelOutputs);
    words = begin + kWordRowBytes;
  }
  // The nibbles of a word, from the lowest: inputs 0, 4, 1, 5, 2, 6, 3, 7.
  template <int i>
  F Weight(int row) const {
    constexpr int kNibble = i < 4 ? 2 * i : 2 * i - 7;
    return MulAdd(Nibble<4 * kNibble>(LoadWords(words + row * kWordRowBytes)), scale, minimum);
  }
};

struct Q8Block {
  static constexpr PanelFormat kFormat = PanelFormat::kQ8;
  static constexpr int kRows = 8, kPerRow = 4, kRowLines = 1;
  const uint8_t* words;
  F scale, zero;
  Q8Block() = default;
  Q8Block(const uint8_t* panel, int64_t blocks, int64_t block) {
    words = panel + block * BlockBytes(kFormat);
    scale = LoadHalf(panel + blocks * BlockBytes(kFormat) + block * 2 * kPanelOutputs);
    zero = Mul(scale, Splat(-128));
  }
  template <int i>
  F Weight(int row) const {
    return MulAdd(Byte<i>(LoadWords(words + row * kWordRowBytes)), scale, zero);
  }
};

// The bytes of kQ8, with one scale an output.
struct Int8Block {
  static constexpr PanelFormat kFormat = PanelFormat::kInt8;
  static constexpr int kRows = 8, kPerRow = 4, kRowLines = 1;
  const uint8_t* words;
  F scale;
  Int8Block() = default;
  Int8Block(const uint8_t* panel, int64_t blocks, int64_t block) {
    words = panel + block * BlockBytes(kFormat);
    scale = AsFloat(LoadWords(panel + blocks * BlockBytes(kFormat)));
  }
  template <int i>
  F Weight(int row) const {
    return Mul(Sub(Byte<i>(LoadWords(words + row * kWordRowBytes)), Splat(128)), scale);
  }
};

// sums += weight i and the following ones of a row of words, times the tokens' inputs.
template <class Block, int kTokens, int i = 0>
inline void AddRow(const Block& block, int row, const float* x, F (&sums)[kTokens]) {
  if constexpr (i < Block::kPerRow) {
    const F weight = block.template Weight<i>(row);
    const float* inputs = x + (row * Block::kPerRow + i) * kTokens;
#pragma GCC unroll 24
    for (int t = 0; t < kTokens; ++t) sums[t] = MulAdd(weight, Splat(inputs[t]), sums[t]);
    AddRow<Block, kTokens, i + 1>(block, row, x, sums);
  }
}

// Adds the bias (null: none) and writes what a panel has of these outputs, of one token.
inline void WriteOutputs(F sum, const float* bias, int64_t outputs, float* y) {
  StoreUpTo(y, Smaller(kPanelOutputs, outputs), Add(sum, bias ? Load(bias) : Zero()));
}
inline void WriteToken(const PanelProduct& p, int64_t panel, int64_t token, F sum) {
  const int64_t first = panel * kPanelOutputs;
  WriteOutputs(sum, p.bias ? p.bias + first : nullptr, p.outputs - first,
               p.y + token * p.y_stride + first);
}
template <int kTokens>
inline void WritePanel(const PanelProduct& p, int64_t panel, const F (&sums)[kTokens]) {
#pragma GCC unroll 24
  for (int t = 0; t < kTokens; ++t) WriteToken(p, panel, t, sums[t]);
}

// Calls kernel(first panel, panels) for all panels of a product: PanelsAtOnce, then one by one.
template <int kTokens, class ManyPanels, class OnePanel>
inline void ForPanels(const PanelProduct& p, ManyPanels many, OnePanel one) {
  constexpr int64_t kMany = PanelsAtOnce(kTokens);
  const int64_t panels = PanelsOf(p.outputs);
  int64_t panel = 0;
  for (; kMany > 1 && panel + kMany <= panels; panel += kMany) many(panel);
  for (; panel < panels; ++panel) one(panel);
}

// sums += the products of blocks [begin, end) of some panels.
template <class Block, int kTokens, int kPanels>
inline void AddBlocks(const PanelProduct& p, const uint8_t* weights, int64_t begin, int64_t end,
                      F (&sums)[kPanels][kTokens]) {
  for (int64_t b = begin; b < end; ++b) {
    const float* x = reinterpret_cast<const float*>(p.activations) + b * kBlockInputs * kTokens;
    Block blocks[kPanels];
    for (int k = 0; k < kPanels; ++k) {
      blocks[k] = Block(weights + k * p.panel_bytes, p.blocks, b);
    }
    const int64_t ahead = PrefetchDistance<kPanels>(p, b * BlockBytes(Block::kFormat));
    for (int row = 0; row < Block::kRows; ++row) {
#pragma GCC unroll 4
      for (int k = 0; k < kPanels; ++k) {
        Prefetch<Block::kRowLines>(blocks[k].words + ahead +
                                   row * Block::kRowLines * kWordRowBytes);
        AddRow<Block, kTokens>(blocks[k], row, x, sums[k]);
      }
    }
  }
}

template <class Block, int kTokens, int kPanels>
inline void Float32Panels(const PanelProduct& p, int64_t panel) {
  const uint8_t* weights = p.panels + panel * p.panel_bytes;
  F totals[kPanels][kTokens];
  for (auto& of_panel : totals) {
    for (F& total : of_panel) total = Zero();
  }
  for (int64_t begin = 0; begin < p.blocks; begin += kSumBlocks) {
    F sums[kPanels][kTokens];
    for (auto& of_panel : sums) {
      for (F& sum : of_panel) sum = Zero();
    }
    AddBlocks<Block, kTokens, kPanels>(p, weights, begin, Smaller(begin + kSumBlocks, p.blocks),
                                       sums);
    for (int k = 0; k < kPanels; ++k) {
      for (int t = 0; t < kTokens; ++t) totals[k][t] = Add(totals[k][t], sums[k][t]);
    }
  }
  for (int k = 0; k < kPanels; ++k) WritePanel<kTokens>(p, panel + k, totals[k]);
}

template <class Block, int kTokens>
void Float32Product(const PanelProduct& p) {
  ForPanels<kTokens>(
      p, [&](int64_t panel) { Float32Panels<Block, kTokens, PanelsAtOnce(kTokens)>(p, panel); },
      [&](int64_t panel) { Float32Panels<Block, kTokens, 1>(p, panel); });
}

template <class Block, int kTokens = kMaxTokens>
constexpr void AddFloat32Kernels(LinearKernels* kernels) {
  if constexpr (kTokens > 0) {
    kernels->float32[static_cast<int>(Block::kFormat)][kTokens] = &Float32Product<Block, kTokens>;
    AddFloat32Kernels<Block, kTokens - 1>(kernels);
  }
}

constexpr void AddFloat32Kernels(LinearKernels* kernels) {
  kernels->max_tokens = kMaxTokens;
  AddFloat32Kernels<Float32Block>(kernels);
  AddFloat32Kernels<BFloat16Block>(kernels);
  AddFloat32Kernels<Q4Block>(kernels);
  AddFloat32Kernels<Q8Block>(kernels);
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
