// Products of bfloat16 by the instructions of AVX-512 BF16; compiled for that set alone.
#include "kernels/linear/activation_loops.h"
#include "kernels/linear/float32_loops.h"
#include "kernels/linear/linear_kernels.h"

namespace lmfusion {
namespace LMFUSION_SIMD {
namespace {

constexpr int64_t kBlockPairs = kBlockInputs / 2;

template <int kTokens>
void BFloat16Product(const PanelProduct& p) {
  constexpr int kChains = ChainsFor(kTokens);
  for (int64_t panel = 0; panel * kPanelOutputs < p.outputs; ++panel) {
    const uint8_t* words = p.panels + panel * p.panel_bytes;
    F sums[kChains][kTokens];
    for (auto& chain : sums) {
      for (F& sum : chain) sum = Zero();
    }
    for (int64_t pair = 0; pair < p.blocks * kBlockPairs; pair += 4) {
      Prefetch<4>(words + pair * kWordRowBytes);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const I weight = LoadWords(words + (pair + i) * kWordRowBytes);
        const uint32_t* x = p.activations + (pair + i) * kTokens;
#pragma GCC unroll 24
        for (int t = 0; t < kTokens; ++t) {
          F& sum = sums[i % kChains][t];
          sum = _mm512_dpbf16_ps(sum, (__m512bh)weight, (__m512bh)SplatWord(x[t]));
        }
      }
    }
    Finish<kTokens>(p, panel, sums);
  }
}

void PackBFloat16(const Activations& a) {
  float rest[kBlockInputs];
  uint32_t words[kMostTokens][kBlockPairs];
  for (int64_t b = 0; b < BlocksOf(a.in); ++b) {
    for (int t = 0; t < a.tokens; ++t) {
      const float* x = BlockOf(a, t, b, rest);
      StoreWords(words[t], (__m512i)_mm512_cvtne2ps_pbh(Load(x + 16), Load(x)));
    }
    WriteColumns(words[0], kBlockPairs, a.tokens, kBlockPairs,
                 a.packed + b * kBlockPairs * a.tokens);
  }
}

inline I RoundedWords(const float* x) {
  return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(Load(x)));
}

template <class Block>
void NarrowPanel(const uint8_t* panel, int64_t blocks, uint32_t* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    alignas(64) float wide[kBlockInputs * kPanelOutputs];
    const Block block(panel, blocks, b);
    for (int row = 0; row < Block::kRows; ++row) WidenRow(block, row, wide);
    for (int64_t pair = 0; pair < kBlockPairs; ++pair) {
      const float* even = wide + 2 * pair * kPanelOutputs;
      const I high = _mm512_slli_epi32(RoundedWords(even + kPanelOutputs), 16);
      StoreWords(out + (b * kBlockPairs + pair) * kPanelOutputs,
                 _mm512_or_si512(RoundedWords(even), high));
    }
  }
}

void Narrow(PanelFormat format, const uint8_t* panel, int64_t blocks, uint32_t* out) {
  switch (format) {
    case PanelFormat::kFloat32: return NarrowPanel<Float32Block>(panel, blocks, out);
    case PanelFormat::kBFloat16: return NarrowPanel<BFloat16Block>(panel, blocks, out);
    case PanelFormat::kQ4: return NarrowPanel<Q4Block>(panel, blocks, out);
    case PanelFormat::kQ8: return NarrowPanel<Q8Block>(panel, blocks, out);
    case PanelFormat::kInt8: return NarrowPanel<Int8Block>(panel, blocks, out);
  }
}

template <int kTokens = kMaxTokens>
constexpr void AddProducts(BFloat16Kernels* kernels) {
  if constexpr (kTokens > 0) {
    kernels->products[kTokens] = &BFloat16Product<kTokens>;
    AddProducts<kTokens - 1>(kernels);
  }
}

constexpr BFloat16Kernels AllKernels() {
  BFloat16Kernels kernels{};
  AddProducts(&kernels);
  kernels.pack = &PackBFloat16;
  kernels.narrow = &Narrow;
  return kernels;
}

}  // namespace

const BFloat16Kernels kBFloat16Kernels = AllKernels();

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
