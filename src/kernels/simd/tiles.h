#pragma once

#include <cstdint>

#if defined(LMFUSION_SOFTWARE_TILES)
#include "software_tiles.h"  // tests/cpp: the same in plain loops, for CPUs without AMX
#else
#include <immintrin.h>
#endif

// Note [Tiles]
// AMX: eight tile registers of up to 16 rows of 64 bytes, and instructions of three kinds. One
// sets the shapes of all registers, some load and store rows that lie any distance apart, some
// multiply: sums [m][n] of 32 bits += inputs [m][k words] * weights [k words][n], a word being two
// bfloat16 or four bytes. Of a product (Intel's manual, TDPBF16PS and TDPBSUD):
//   - row m of the sums depends on row m of the inputs alone;
//   - bytes: a sum is that of whole numbers, exact;
//   - bfloat16: the first numbers of all pairs are summed up in the order of k, each by a fused
//     multiplication and addition in float32, and the second ones apart from them; the two sums are
//     added, then the result to the register's. Numbers below 2^-126, given or computed, count as
//     zero, as for AVX-512 BF16.
// No compiler knows that the instructions read and write memory (GCC 12's own functions do not say
// it), so each says that it may touch all of it, and nothing is moved across.
// The shapes are set when a kernel begins and released when it ends: another library that keeps its
// own between two calls of ours would find none, and sets them anew (as oneDNN does before each
// use).
namespace lmfusion {
namespace LMFUSION_SIMD {

constexpr int kTileRows = 16;
constexpr int kTileRowBytes = 64;

// What SetTileShapes reads; registers without rows are not used.
struct TileShapes {
  alignas(64) uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

#if !defined(LMFUSION_SOFTWARE_TILES)

inline void SetTileShapes(const TileShapes* shapes) {
  asm volatile("ldtilecfg %0" : : "m"(*shapes) : "memory");
}
inline void ReleaseTiles() { asm volatile("tilerelease" : : : "memory"); }

template <int kTile>
inline void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
inline void LoadTile(const void* rows, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
inline void StoreTile(void* rows, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}
template <int kSums, int kInputs, int kWeights>
inline void AddBFloat16Tile() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0"
               :
               : "i"(kSums), "i"(kInputs), "i"(kWeights));
}
// Signed inputs, unsigned weights.
template <int kSums, int kInputs, int kWeights>
inline void AddByteTile() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kInputs), "i"(kWeights));
}

// 32 floats, rounded to bfloat16.
inline void StoreBFloat16(void* to, const float* x) {
  const __m512bh rounded = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
  _mm512_storeu_si512(to, (__m512i)rounded);
}

#endif

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
