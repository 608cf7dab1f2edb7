#pragma once

#include "kernels/linear/linear_kernels.h"

namespace lmfusion {

// The most tokens that a kernel of tiles takes at once: the rows of two registers.
constexpr int kMostTileTokens = 32;
// Panels that a kernel works on at once, see Note [Registers of tiles].
constexpr int TilePanelsAtOnce(int64_t tokens) { return tokens > kMostTileTokens / 2 ? 2 : 4; }

// Products by tile registers, see Note [Tiles] (kernels/simd/tiles.h). A row of words of a panel is
// a row of a tile as it is. Activations of n tokens stand as
//   bfloat16  [blocks][n][16 words]: a token's 32 inputs in their order
//   int8      [blocks][n][8 words]: the same in bytes; [blocks][2][n] floats: the scale, and the
//             scale times the sum of the bytes, as in Note [Activations]; [n] floats: what 128 in
//             every weight adds to a sum, with the sign changed
constexpr int64_t TileInt8Words(int64_t blocks) {  // of a token; whole lines of the cache
  return (blocks * kInt8BlockWords + 1 + 15) / 16 * 16;
}

using TileKernel = void (*)(const PanelProduct& product, int tokens);

struct TileKernels {
  // With fewer tokens LinearKernels::int8, which gives the same bits, has as little to do.
  int least_int8_tokens;
  TileKernel products[kPanelFormats];  // kBFloat16, kQ4 and kInt8; null: there are none
  ActivationPacker bfloat16_activations, int8_activations;
};
#if defined(LMFUSION_AMX)
namespace amx {
extern const TileKernels kTileKernels;
}
#endif
// Null where CurrentInstructionSet() has no tiles.
inline const TileKernels* CurrentTileKernels() {
#if defined(LMFUSION_AMX)
  if (CurrentInstructionSet() == InstructionSet::kAmx) return &amx::kTileKernels;
#endif
  return nullptr;
}

}  // namespace lmfusion
