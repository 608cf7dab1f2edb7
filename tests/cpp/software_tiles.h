#pragma once

#include <cstdint>

// The tile registers of AMX as Intel's manual defines them (Note [Tiles] in
// src/kernels/simd/tiles.h says what of it the kernels use), in plain loops:
// src/kernels/linear/tile_kernels.cpp is compiled with them a second time, in a namespace of its
// own. What would be an exception of the CPU ends the program with a word about it.
namespace lmfusion {
namespace software_tiles {

// Instructions of this thread.
struct TileCounts {
  int64_t loads = 0, stores = 0, products = 0, shapes = 0, releases = 0;
};
extern thread_local TileCounts counts;

void SetTileShapes(const void* shapes);
void ReleaseTiles();
void Zero(int tile);
void Load(int tile, const void* rows, int64_t stride);
void StoreRows(int tile, void* rows, int64_t stride);
void AddBFloat16(int sums, int inputs, int weights);
void AddBytes(int sums, int inputs, int weights);
void StoreBFloat16(void* to, const float* x);  // 32 floats

template <int kTile>
inline void ZeroTile() {
  Zero(kTile);
}
template <int kTile>
inline void LoadTile(const void* rows, int64_t stride) {
  Load(kTile, rows, stride);
}
template <int kTile>
inline void StoreTile(void* rows, int64_t stride) {
  StoreRows(kTile, rows, stride);
}
template <int kSums, int kInputs, int kWeights>
inline void AddBFloat16Tile() {
  AddBFloat16(kSums, kInputs, kWeights);
}
template <int kSums, int kInputs, int kWeights>
inline void AddByteTile() {
  AddBytes(kSums, kInputs, kWeights);
}

}  // namespace software_tiles
}  // namespace lmfusion
