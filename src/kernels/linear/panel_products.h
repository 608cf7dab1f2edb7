#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/linear/linear_kernels.h"
#include "kernels/linear/packed_weight.h"
#include "kernels/linear/tile_kernels.h"
#include "kernels/rows/rows.h"
#include "kernels/threads/scratch.h"

namespace lmfusion {

// The products of some rows of activations with any panels of a packed weight: packs the
// activations once, and knows the kernels for this number of rows. Compute() may be called from
// many threads.
class PanelProducts {
 public:
  // Of rows that are still to be packed. `tiles`: null where the CPU has no tile registers.
  PanelProducts(const PackedWeight& weight, int64_t rows,
                const TileKernels* tiles = CurrentTileKernels());
  // Of x [rows, in].
  PanelProducts(const PackedWeight& weight, const float* x, int64_t rows,
                const TileKernels* tiles = CurrentTileKernels());

  // Copies x [rows, in], each row normalised where there is a norm.
  void Pack(const float* x, const RowNorm* norm = nullptr);
  // Copies 32 inputs of every row, block number `block`, from x [rows][stride], where they are
  // rounded. Threads may pack blocks side by side; after the last, FinishPacking().
  void PackBlock(int64_t block, float* x, int64_t stride);
  void FinishPacking();

  // y[row * y_stride + i] for the outputs i of [first_panel, first_panel + panels), plus bias.
  void Compute(int64_t first_panel, int64_t panels, float* y, int64_t y_stride) const;

  // The same of all panels, on many threads: y [rows, out] = products, or residual + scale *
  // products.
  void ComputeAll(float* y, const float* residual = nullptr, float scale = 1) const;

  // Panels that make a chunk of a loop worth a thread's while: a multiple of together().
  int64_t grain() const { return grain_; }
  // Panels that kernels work on side by side.
  int64_t together() const { return together_; }

 private:
  // Neighbouring rows that one call of a kernel multiplies.
  struct TokenTile {
    int64_t first;
    int tokens;
    uint32_t* packed;
  };
  // Blocks [begin, end) of some panels.
  struct Stretch {
    const uint8_t* weights;  // of the first panel
    int64_t panels, begin, end;
  };
  // Which kernels run.
  enum class Path { kFloat32, kBFloat16, kInt8 };

  bool TilesMultiply() const;
  void ChoosePath();
  void CutRows();
  int64_t WordsPerRow() const;
  const ActivationPacker& Packer() const;
  void Finish(const TokenTile& tile) const;
  int64_t MostTokens() const;
  int64_t PanelsTogether() const;
  PanelKernel KernelFor(int tokens) const;
  // Compute() of all tokens with panels that lie at `product.panels`.
  void MultiplyTiles(PanelProduct product) const;
  void MultiplyStretches(const PanelProduct& product) const;
  Stretch StretchOf(const uint8_t* weights, int64_t panels, int64_t begin) const;
  void Unpack(const Stretch& stretch, int64_t there, uint8_t* unpacked) const;
  int64_t AddStretch(const Stretch& stretch, const Stretch& next, uint8_t* unpacked,
                     float* totals) const;
  int64_t StretchBlockBytes() const;

  const PackedWeight& weight_;
  const int64_t rows_;
  const LinearKernels& kernels_;
  const BFloat16Kernels* const bfloat16_;
  const TileKernels* tiles_;  // null where they do not multiply
  Path path_ = Path::kFloat32;
  bool round_ = false;      // activations as `compute` has them, before float32 products
  bool stretches_ = false;  // all tokens with one stretch of weights after the other
  const ByteStretches* bytes_ = nullptr;  // where those are stretches of bytes
  int64_t blocks_, panel_bytes_, together_ = 1, grain_ = 1;
  std::optional<Scratch> packed_;
  std::vector<TokenTile> token_tiles_;
};

// x rounded as products of this type see it: to bfloat16, to 8 bits, or not at all. In place.
void RoundActivations(Compute compute, float* x, int64_t rows, int64_t in);

}  // namespace lmfusion
