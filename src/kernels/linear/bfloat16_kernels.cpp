// Products of bfloat16 by the instructions of AVX-512 BF16; compiled for that set alone.
#include "kernels/linear/activation_loops.h"
#include "kernels/linear/float32_loops.h"
#include "kernels/linear/linear_kernels.h"

namespace lmfusion {
namespace LMFUSION_SIMD {
namespace {

constexpr int64_t kBlockPairs = kBlockInputs / 2;

template <int kTokens, int kPanels>
inline void BFloat16Panels(const PanelProduct& p, int64_t panel) {
  const uint8_t* words = p.panels + panel * p.panel_bytes;
  F sums[kPanels][kTokens];
  for (auto& of_panel : sums) {
    for (F& sum : of_panel) sum = Zero();
  }
  for (int64_t pair = 0; pair < p.blocks * kBlockPairs; pair += 4) {
    const int64_t ahead = PrefetchDistance<kPanels>(p, pair * kWordRowBytes);
#pragma GCC unroll 4
    for (int k = 0; k < kPanels; ++k) {
      const uint8_t* row = words + k * p.panel_bytes + pair * kWordRowBytes;
      Prefetch<4>(row + ahead);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const I weight = LoadWords(row + i * kWordRowBytes);
        const uint32_t* x = p.activations + (pair + i) * kTokens;
#pragma GCC unroll 24
        for (int t = 0; t < kTokens; ++t) {
          F& sum = sums[k][t];
          sum = _mm512_dpbf16_ps(sum, (__m512bh)weight, (__m512bh)SplatWord(x[t]));
        }
      }
    }
  }
  for (int k = 0; k < kPanels; ++k) WritePanel<kTokens>(p, panel + k, sums[k]);
}

template <int kTokens>
void BFloat16Product(const PanelProduct& p) {
  ForPanels<kTokens>(
      p, [&](int64_t panel) { BFloat16Panels<kTokens, PanelsAtOnce(kTokens)>(p, panel); },
      [&](int64_t panel) { BFloat16Panels<kTokens, 1>(p, panel); });
}

void PackBFloat16(const Activations& a) {
  float rest[kBlockInputs];
  uint32_t words[kMostTokens][kBlockPairs];
  for (int64_t b = a.begin; b < a.end; ++b) {
    for (int t = 0; t < a.tokens; ++t) {
      const float* x = BlockOf(a, t, b, rest);
      StoreWords(words[t], (__m512i)_mm512_cvtne2ps_pbh(Load(x + 16), Load(x)));
    }
    WriteColumns(words[0], kBlockPairs, a.tokens, a.packed + b * kBlockPairs * a.tokens);
  }
}

template <int kTokens = kMostTokens>
constexpr void AddProducts(BFloat16Kernels* kernels) {
  if constexpr (kTokens > 0) {
    kernels->products[kTokens] = &BFloat16Product<kTokens>;
    AddProducts<kTokens - 1>(kernels);
  }
}

constexpr BFloat16Kernels AllKernels() noexcept {
  BFloat16Kernels kernels{};
  AddProducts(&kernels);
  kernels.activations = {&PackBFloat16, nullptr};
  return kernels;
}

}  // namespace

const BFloat16Kernels kBFloat16Kernels = AllKernels();

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
