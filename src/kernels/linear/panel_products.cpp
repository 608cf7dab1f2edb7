#include "kernels/linear/panel_products.h"

#include <algorithm>
#include <cstring>

#include "kernels/device/numbers.h"
#include "kernels/threads/parallel.h"

namespace lmfusion {
namespace {

// Vector operations of a chunk: about five microseconds.
constexpr int64_t kChunkOperations = 16384;
// Inputs that one thread packs in about the time that it takes another one to join it.
constexpr int64_t kSerialInputs = 16384;
constexpr auto kWordBytes = static_cast<int64_t>(sizeof(uint32_t));

float Rounded(float value) { return ToFloat(Convert<BFloat16>::From(value)); }

void Round(const LinearKernels& kernels, Compute compute, float* x, int64_t rows, int64_t in) {
  if (compute == Compute::kFloat32) return;
  if (compute == Compute::kBFloat16) {
    std::transform(x, x + rows * in, x, Rounded);
    return;
  }
  std::vector<uint32_t> packed(Int8Words(BlocksOf(in)));
  for (int64_t row = 0; row < rows; ++row) {
    kernels.int8_activations.pack({x + row * in, in, in, 0, BlocksOf(in), 1, packed.data()});
    for (int64_t i = 0; i < in; ++i) {
      const uint32_t* block = packed.data() + i / kBlockInputs * kInt8BlockWords;
      const float scale = FloatOf(block[8]);
      const auto* bytes = reinterpret_cast<const int8_t*>(block);
      x[row * in + i] = scale * static_cast<float>(bytes[i % kBlockInputs]);
    }
  }
}

}  // namespace

PanelProducts::PanelProducts(const PackedWeight& weight, int64_t rows, const TileKernels* tiles)
    : weight_(weight),
      rows_(rows),
      kernels_(CurrentLinearKernels()),
      bfloat16_(CurrentBFloat16Kernels()),
      tiles_(tiles),
      blocks_(BlocksOf(weight.in)),
      panel_bytes_(weight.panel_bytes()) {
  ChoosePath();
  CutRows();
  const int64_t lanes = tiles_ != nullptr          ? 2
                        : path_ == Path::kFloat32  ? 32
                        : path_ == Path::kBFloat16 ? 16
                                                   : 12;
  const int64_t operations = blocks_ * (lanes * rows + 96);
  const int64_t share = PanelsOf(weight.out) / (4 * ThreadCount());
  together_ = PanelsTogether();
  grain_ = std::min(share, (kChunkOperations + operations - 1) / operations);
  grain_ = std::max<int64_t>(1, (grain_ + together_ - 1) / together_) * together_;
}

PanelProducts::PanelProducts(const PackedWeight& weight, const float* x, int64_t rows,
                             const TileKernels* tiles)
    : PanelProducts(weight, rows, tiles) {
  Pack(x);
}

// Products of bfloat16 are of tiles for any number of rows, since their sums have other bits.
bool PanelProducts::TilesMultiply() const {
  if (tiles_ == nullptr || tiles_->products[static_cast<int>(weight_.format)] == nullptr) {
    return false;
  }
  switch (weight_.compute) {
    case Compute::kBFloat16: return true;
    case Compute::kInt8:
    case Compute::kInt4: return rows_ >= tiles_->least_int8_tokens;
    case Compute::kFloat16:  // PackWeight makes none
    case Compute::kFloat32: break;
  }
  return false;
}

int64_t PanelProducts::PanelsTogether() const {
  if (tiles_ != nullptr) return TilePanelsAtOnce(rows_);
  return stretches_ ? kernels_.panels_of_tokens : PanelsAtOnce(rows_);
}

void PanelProducts::ChoosePath() {
  if (!TilesMultiply()) tiles_ = nullptr;
  if (tiles_ != nullptr) {
    path_ = weight_.compute == Compute::kBFloat16 ? Path::kBFloat16 : Path::kInt8;
    return;
  }
  const PanelFormat format = weight_.format;
  switch (weight_.compute) {
    case Compute::kInt8:
    case Compute::kInt4:
      if (kernels_.int8[static_cast<int>(format)][1]) {
        path_ = Path::kInt8;
        const ByteStretches& stretches =
            format == PanelFormat::kQ4 ? kernels_.q4_stretches : kernels_.int8_stretches;
        stretches_ = stretches.kernels[1] != nullptr && rows_ >= stretches.least_tokens;
        if (stretches_) bytes_ = &stretches;
        return;
      }
      round_ = true;
      break;
    case Compute::kBFloat16:
      if (bfloat16_ != nullptr) {  // PackWeight has rounded the weights
        path_ = Path::kBFloat16;
        return;
      }
      round_ = true;
      break;
    case Compute::kFloat16:  // PackWeight makes none
    case Compute::kFloat32: break;
  }
  path_ = Path::kFloat32;
  stretches_ = rows_ > kernels_.max_tokens || format == PanelFormat::kInt8;
}

int64_t PanelProducts::MostTokens() const {
  if (tiles_ != nullptr) return kMostTileTokens;
  switch (path_) {
    case Path::kBFloat16: return kMostTokens;
    case Path::kInt8: return stretches_ ? kernels_.max_tokens : kernels_.max_int8_tokens;
    case Path::kFloat32: break;
  }
  return kernels_.max_tokens;
}

int64_t PanelProducts::WordsPerRow() const {
  switch (path_) {
    case Path::kBFloat16: return blocks_ * kBlockInputs / 2;
    case Path::kInt8: break;
    case Path::kFloat32: return blocks_ * kBlockInputs;
  }
  if (tiles_ != nullptr) return TileInt8Words(blocks_);
  return bytes_ != nullptr ? blocks_ * bytes_->block_words + 1 : Int8Words(blocks_);
}

const ActivationPacker& PanelProducts::Packer() const {
  if (tiles_ != nullptr) {
    return path_ == Path::kBFloat16 ? tiles_->bfloat16_activations : tiles_->int8_activations;
  }
  switch (path_) {
    case Path::kFloat32: return kernels_.float32_activations;
    case Path::kBFloat16: return bfloat16_->activations;
    case Path::kInt8: break;
  }
  return bytes_ != nullptr ? bytes_->activations : kernels_.int8_activations;
}

// Tiles of about as many tokens each.
void PanelProducts::CutRows() {
  const int64_t most = MostTokens();
  const int64_t count = (rows_ + most - 1) / most;
  const int64_t words_per_row = WordsPerRow();
  packed_.emplace(rows_ * words_per_row * kWordBytes);
  auto* const packed = packed_->As<uint32_t>();
  token_tiles_.resize(count);
  for (int64_t i = 0, first = 0; i < count; ++i) {
    const int tokens = static_cast<int>(rows_ / count + (i < rows_ % count ? 1 : 0));
    token_tiles_[i] = {first, tokens, packed + first * words_per_row};
    first += tokens;
  }
}

void PanelProducts::Pack(const float* x, const RowNorm* norm) {
  const int64_t in = weight_.in, count = static_cast<int64_t>(token_tiles_.size());
  const auto normalize = CurrentRowKernels().normalize;
  std::optional<Scratch> changed;  // rows that are not packed as they came
  if (norm != nullptr || round_) changed.emplace(rows_ * in * kWordBytes);
  const auto pack = [&](const TokenTile& tile) {
    const float* rows = x + tile.first * in;
    if (changed) {
      float* const to = changed->As<float>() + tile.first * in;
      for (int64_t i = 0; norm != nullptr && i < tile.tokens; ++i) {
        normalize(rows + i * in, *norm, in, to + i * in);
      }
      if (norm == nullptr) std::copy_n(rows, tile.tokens * in, to);
      if (round_) Round(kernels_, weight_.compute, to, tile.tokens, in);
      rows = to;
    }
    Packer().pack({rows, in, in, 0, blocks_, tile.tokens, tile.packed});
    Finish(tile);
  };
  const int64_t grain = std::max<int64_t>(1, kSerialInputs / (MostTokens() * in));
  ParallelFor(0, count, rows_ * in <= kSerialInputs ? count : grain,
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) pack(token_tiles_[i]);
              });
}

void PanelProducts::PackBlock(int64_t block, float* x, int64_t stride) {
  for (int64_t row = 0; round_ && row < rows_; ++row) {
    Round(kernels_, weight_.compute, x + row * stride, 1, kBlockInputs);
  }
  for (const TokenTile& tile : token_tiles_) {
    Packer().pack(
        {x + tile.first * stride, stride, weight_.in, block, block + 1, tile.tokens, tile.packed});
  }
}

void PanelProducts::FinishPacking() {
  for (const TokenTile& tile : token_tiles_) Finish(tile);
}

void PanelProducts::Finish(const TokenTile& tile) const {
  const auto finish = Packer().finish;
  if (finish != nullptr) finish(tile.packed, blocks_, tile.tokens);
}

PanelKernel PanelProducts::KernelFor(int tokens) const {
  switch (path_) {
    case Path::kBFloat16: return bfloat16_->products[tokens];
    case Path::kInt8: return kernels_.int8[static_cast<int>(weight_.format)][tokens];
    case Path::kFloat32: break;
  }
  return kernels_.float32[static_cast<int>(weight_.format)][tokens];
}

void PanelProducts::Compute(int64_t first_panel, int64_t panels, float* y, int64_t y_stride) const {
  const uint8_t* weights = weight_.panels.get() + first_panel * panel_bytes_;
  const int64_t first = first_panel * kPanelOutputs;
  const float* bias = weight_.bias.empty() ? nullptr : weight_.bias.data() + first;
  const int64_t outputs = std::min(panels * kPanelOutputs, weight_.out - first);
  const PanelProduct product{weights, panel_bytes_, blocks_, bias, nullptr, y, y_stride, outputs};
  if (stretches_) {
    MultiplyStretches(product);
  } else {
    MultiplyTiles(product);
  }
}

void PanelProducts::ComputeAll(float* y, const float* residual, float scale) const {
  const int64_t out = weight_.out;
  const auto add_scaled = CurrentRowKernels().add_scaled;
  ParallelFor(0, PanelsOf(out), grain_, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kPanelOutputs, last = std::min(end * kPanelOutputs, out);
    Compute(begin, end - begin, y + first, out);
    if (residual == nullptr) return;
    for (int64_t i = first; i < rows_ * out; i += out) {
      add_scaled(residual + i, scale, last - first, y + i);
    }
  });
}

void PanelProducts::MultiplyTiles(PanelProduct product) const {
  float* const y = product.y;
  for (const TokenTile& tile : token_tiles_) {
    product.activations = tile.packed;
    product.y = y + tile.first * product.y_stride;
    if (tiles_ != nullptr) {
      tiles_->products[static_cast<int>(weight_.format)](product, tile.tokens);
    } else {
      KernelFor(tile.tokens)(product);
    }
  }
}

// Weights are read (and unpacked) once, a stretch at a time, which then lies in the first cache for
// all tokens.
void PanelProducts::MultiplyStretches(const PanelProduct& product) const {
  const int64_t most = bytes_ ? 1 : kernels_.panels_of_tokens;
  const bool unpack = weight_.format != PanelFormat::kFloat32;
  alignas(64) uint8_t unpacked[kMostPanelsOfTokens * kSumBlocks * kMostStretchBlockBytes];
  ChunkFloats memory(rows_ * most * kPanelOutputs);
  float* const totals = memory.data();
  const bool scaled = bytes_ != nullptr && weight_.format == PanelFormat::kInt8;
  const int64_t all = PanelsOf(product.outputs);
  int64_t there = 0;  // blocks of a stretch that are unpacked already
  for (int64_t first = 0; first < all; first += most) {
    const uint8_t* const weights = product.panels + first * panel_bytes_;
    const int64_t panels = std::min(most, all - first);
    std::fill_n(totals, rows_ * panels * kPanelOutputs, 0.0f);
    for (int64_t begin = 0; begin < blocks_; begin += kSumBlocks) {
      const Stretch stretch = StretchOf(weights, panels, begin);
      const Stretch next =
          stretch.end < blocks_
              ? StretchOf(weights, panels, stretch.end)
              : StretchOf(weights + panels * panel_bytes_, std::min(most, all - first - panels), 0);
      if (unpack) Unpack(stretch, there, unpacked);
      there = AddStretch(stretch, next, unpack ? unpacked : nullptr, totals);
    }
    const int64_t first_output = first * kPanelOutputs;
    kernels_.write_totals({totals, rows_, panels,
                           scaled ? weights + blocks_ * BlockBytes(PanelFormat::kInt8) : nullptr,
                           product.bias ? product.bias + first_output : nullptr,
                           product.y + first_output, product.y_stride,
                           product.outputs - first_output});
  }
}

PanelProducts::Stretch PanelProducts::StretchOf(const uint8_t* weights, int64_t panels,
                                                int64_t begin) const {
  return {weights, panels, begin, std::min(begin + kSumBlocks, blocks_)};
}

int64_t PanelProducts::StretchBlockBytes() const {
  return (bytes_ ? bytes_->block_rows : kBlockInputs) * kWordRowBytes;
}

// Blocks of a stretch from number `there` on.
void PanelProducts::Unpack(const Stretch& stretch, int64_t there, uint8_t* unpacked) const {
  const int64_t begin = stretch.begin + there;
  if (begin == stretch.end) return;
  for (int64_t panel = 0; panel < stretch.panels; ++panel) {
    const uint8_t* const from = stretch.weights + panel * panel_bytes_;
    uint8_t* const to = unpacked + (panel * kSumBlocks + there) * StretchBlockBytes();
    if (bytes_ != nullptr) {
      bytes_->unpack(from, blocks_, begin, stretch.end, to);
    } else {
      kernels_.widen(weight_.format, from, blocks_, begin, stretch.end,
                     reinterpret_cast<float*>(to));
    }
  }
}

// Adds the products of a stretch; each tile of tokens asks for its share of the one after it,
// blocks of which the last tile may unpack. Returns how many.
int64_t PanelProducts::AddStretch(const Stretch& stretch, const Stretch& next, uint8_t* unpacked,
                                  float* totals) const {
  const auto tiles = static_cast<int64_t>(token_tiles_.size());
  const int64_t blocks = stretch.end - stretch.begin;
  StretchProduct product;
  product.blocks = blocks;
  product.panels =
      unpacked ? unpacked : stretch.weights + stretch.begin * BlockBytes(weight_.format);
  product.panel_bytes = unpacked ? kSumBlocks * StretchBlockBytes() : panel_bytes_;
  product.ahead_panel_bytes = panel_bytes_;
  const StretchKernel refill =
      bytes_ || next.panels != kernels_.panels_of_tokens || tiles == 1
          ? nullptr
          : kernels_.refills[static_cast<int>(weight_.format)][token_tiles_.back().tokens];
  if (refill != nullptr) {
    product.refill = {unpacked, next.weights, panel_bytes_,
                      blocks_,  next.begin,   std::min(blocks, next.end - next.begin)};
  }
  const int64_t shares = refill ? tiles - 1 : tiles;
  const int64_t share = (kSumBlocks * BlockBytes(weight_.format) + shares - 1) / shares;
  const int64_t rows = blocks * StretchBlockBytes() / kWordRowBytes;
  product.ahead_step = (share + rows - 1) / rows;
  const int64_t row_words = bytes_ ? bytes_->block_words : kBlockInputs;
  const auto* const kernels = bytes_ ? bytes_->kernels : kernels_.stretches[stretch.panels];
  for (int64_t i = 0; i < tiles; ++i) {
    const TokenTile& tile = token_tiles_[i];
    product.activations = tile.packed + stretch.begin * row_words * tile.tokens;
    product.totals = totals + tile.first * stretch.panels * kPanelOutputs;
    product.ahead = next.weights + next.begin * BlockBytes(weight_.format) + i * share;
    (refill && i == tiles - 1 ? refill : kernels[tile.tokens])(product);
  }
  return product.refill.blocks;
}

void RoundActivations(Compute compute, float* x, int64_t rows, int64_t in) {
  Round(CurrentLinearKernels(), compute, x, rows, in);
}

}  // namespace lmfusion
