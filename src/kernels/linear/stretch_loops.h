#pragma once

#include <cstdint>

#include "kernels/linear/float32_loops.h"

namespace lmfusion {
namespace LMFUSION_SIMD {

// Products of floats, many tokens with one stretch of weights after the other.

template <int kTokens, int kPanels>
using StretchSums = F[kTokens][kPanels];

// sums += one input of the tokens times one weight of every output. Every input that is read serves
// all registers of kPanels panels, and every weight all tokens.
template <int kTokens, int kPanels>
inline void AddInput(const F (&weights)[kPanels], const float* inputs,
                     StretchSums<kTokens, kPanels>& sums) {
#pragma GCC unroll 24
  for (int t = 0; t < kTokens; ++t) {
    const F input = Splat(inputs[t]);
#pragma GCC unroll 2
    for (int k = 0; k < kPanels; ++k) sums[t][k] = MulAdd(weights[k], input, sums[t][k]);
  }
}

template <int kTokens, int kPanels>
inline void AddTotals(const StretchSums<kTokens, kPanels>& sums, float* total) {
#pragma GCC unroll 24
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int k = 0; k < kPanels; ++k, total += kPanelOutputs) {
      Store(total, Add(Load(total), sums[t][k]));
    }
  }
}

// sums += the products of blocks [begin, end) of the stretch; in a loop of single inputs the
// compiler leaves all sums where they are.
template <int kTokens, int kPanels>
inline void AddStretchBlocks(const StretchProduct& p, int64_t begin, int64_t end,
                             StretchSums<kTokens, kPanels>& sums) {
  const auto* activations = reinterpret_cast<const float*>(p.activations);
  for (int64_t i = begin * kBlockInputs; i < end * kBlockInputs; ++i) {
    F weights[kPanels];
#pragma GCC unroll 2
    for (int k = 0; k < kPanels; ++k) {
      weights[k] = AsFloat(LoadWords(p.panels + k * p.panel_bytes + i * kWordRowBytes));
      __builtin_prefetch(p.ahead + k * p.ahead_panel_bytes + i * p.ahead_step);
    }
    AddInput<kTokens, kPanels>(weights, activations + i * kTokens, sums);
  }
}

template <int kTokens, int kPanels>
void AddStretch(const StretchProduct& p) {
  StretchSums<kTokens, kPanels> sums;
  for (auto& of_token : sums) {
    for (F& sum : of_token) sum = Zero();
  }
  AddStretchBlocks<kTokens, kPanels>(p, 0, p.blocks, sums);
  AddTotals<kTokens, kPanels>(sums, p.totals);
}

// As AddInput, of weight i and the following ones of a row; what has been read makes way for the
// same weight of the blocks that come next.
template <class Block, int kTokens, int kPanels, int i = 0>
inline void AddAndRefillRow(const Block (&next)[kPanels], int row, const StretchProduct& p,
                            int64_t block, StretchSums<kTokens, kPanels>& sums) {
  if constexpr (i < Block::kPerRow) {
    const int64_t input = block * kBlockInputs + row * Block::kPerRow + i;
    uint8_t* at = p.refill.into + input * kWordRowBytes;
    F weights[kPanels];
#pragma GCC unroll 2
    for (int k = 0; k < kPanels; ++k) {
      float* place = reinterpret_cast<float*>(at + k * p.panel_bytes);
      weights[k] = Load(place);
      Store(place, next[k].template Weight<i>(row));
    }
    AddInput<kTokens, kPanels>(
        weights, reinterpret_cast<const float*>(p.activations) + input * kTokens, sums);
    AddAndRefillRow<Block, kTokens, kPanels, i + 1>(next, row, p, block, sums);
  }
}

// AddStretch of the last tokens that need a stretch of widened weights. The first of its blocks are
// overwritten by those of the next stretch, which are widened while units that multiply are busy:
// by itself that takes a tenth of the time of 24 tokens.
template <class Block, int kTokens, int kPanels>
void AddAndRefill(const StretchProduct& p) {
  StretchSums<kTokens, kPanels> sums;
  for (auto& of_token : sums) {
    for (F& sum : of_token) sum = Zero();
  }
  for (int64_t b = 0; b < p.refill.blocks; ++b) {
    Block next[kPanels];
    for (int k = 0; k < kPanels; ++k) {
      next[k] = Block(p.refill.panels + k * p.refill.panel_bytes, p.refill.blocks_of_panel,
                      p.refill.begin + b);
    }
    for (int row = 0; row < Block::kRows; ++row) {
      AddAndRefillRow<Block, kTokens, kPanels>(next, row, p, b, sums);
    }
  }
  AddStretchBlocks<kTokens, kPanels>(p, p.refill.blocks, p.blocks, sums);
  AddTotals<kTokens, kPanels>(sums, p.totals);
}

inline void WriteTotals(const StretchTotals& s) {
  const float* total = s.totals;
  for (int64_t row = 0; row < s.rows; ++row) {
    for (int64_t first = 0; first < s.panels * kPanelOutputs; first += kPanelOutputs) {
      F sum = Load(total);
      total += kPanelOutputs;
      if (s.scales != nullptr) sum = Mul(sum, AsFloat(LoadWords(s.scales)));
      WriteOutputs(sum, s.bias ? s.bias + first : nullptr, s.outputs - first,
                   s.y + row * s.y_stride + first);
    }
  }
}

// A panel as panels kFloat32 hold it.
template <class Block, int i = 0>
inline void WidenRow(const Block& block, int row, float* out) {
  if constexpr (i < Block::kPerRow) {
    Store(out + (row * Block::kPerRow + i) * kPanelOutputs, block.template Weight<i>(row));
    WidenRow<Block, i + 1>(block, row, out);
  }
}

template <class Block>
void WidenBlocks(const uint8_t* panel, int64_t blocks, int64_t begin, int64_t end, float* out) {
  for (int64_t b = begin; b < end; ++b, out += kBlockInputs * kPanelOutputs) {
    const Block block(panel, blocks, b);
    for (int row = 0; row < Block::kRows; ++row) WidenRow(block, row, out);
  }
}

inline void Widen(PanelFormat format, const uint8_t* panel, int64_t blocks, int64_t begin,
                  int64_t end, float* out) {
  switch (format) {
    case PanelFormat::kFloat32: return WidenBlocks<Float32Block>(panel, blocks, begin, end, out);
    case PanelFormat::kBFloat16: return WidenBlocks<BFloat16Block>(panel, blocks, begin, end, out);
    case PanelFormat::kQ4: return WidenBlocks<Q4Block>(panel, blocks, begin, end, out);
    case PanelFormat::kQ8: return WidenBlocks<Q8Block>(panel, blocks, begin, end, out);
    case PanelFormat::kInt8: return WidenBlocks<Int8Block>(panel, blocks, begin, end, out);
  }
}

template <int kPanels, int kTokens = kMaxTokens>
constexpr void AddStretchKernels(LinearKernels* kernels) {
  if constexpr (kTokens > 0) {
    kernels->stretches[kPanels][kTokens] = &AddStretch<kTokens, kPanels>;
    AddStretchKernels<kPanels, kTokens - 1>(kernels);
  }
}

template <class Block, int kTokens = kMaxTokens>
constexpr void AddRefillKernels(LinearKernels* kernels) {
  if constexpr (kTokens > 0) {
    kernels->refills[static_cast<int>(Block::kFormat)][kTokens] =
        &AddAndRefill<Block, kTokens, kPanelsOfTokens>;
    AddRefillKernels<Block, kTokens - 1>(kernels);
  }
}

constexpr void AddStretches(LinearKernels* kernels) {
  kernels->panels_of_tokens = kPanelsOfTokens;
  AddStretchKernels<1>(kernels);
  if constexpr (kPanelsOfTokens == 2) {
    AddStretchKernels<2>(kernels);
    AddRefillKernels<BFloat16Block>(kernels);
    AddRefillKernels<Q4Block>(kernels);
    AddRefillKernels<Q8Block>(kernels);
  }
  kernels->widen = &Widen;
  kernels->write_totals = &WriteTotals;
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
