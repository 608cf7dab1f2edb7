#include "kernels/linear/panel_products.h"

#include <algorithm>

#include "kernels/device/numbers.h"
#include "kernels/threads/parallel.h"

namespace lmfusion {
namespace {

// Vector operations of a chunk: about five microseconds.
constexpr int64_t kChunkOperations = 16384;
// Inputs that one thread packs in about the time that it takes another one to join it.
constexpr int64_t kSerialInputs = 16384;
// Of token tiles: so many times weights are unpacked in registers rather than once in memory.
constexpr int64_t kFewTiles = 2;

float Rounded(float value) { return ToFloat(Convert<BFloat16>::From(value)); }

void Round(const LinearKernels& kernels, Compute compute, float* x, int64_t rows, int64_t in) {
  if (compute == Compute::kFloat32) return;
  if (compute == Compute::kBFloat16) {
    std::transform(x, x + rows * in, x, Rounded);
    return;
  }
  std::vector<uint32_t> packed(BlocksOf(in) * kInt8BlockWords);
  for (int64_t row = 0; row < rows; ++row) {
    kernels.pack_int8({x + row * in, in, 1, packed.data()});
    for (int64_t i = 0; i < in; ++i) {
      const uint32_t* block = packed.data() + i / kBlockInputs * kInt8BlockWords;
      const float scale = FloatOf(block[8]);
      const auto* bytes = reinterpret_cast<const int8_t*>(block);
      x[row * in + i] = scale * static_cast<float>(bytes[i % kBlockInputs]);
    }
  }
}

}  // namespace

PanelProducts::PanelProducts(const PackedWeight& weight, const float* x, int64_t rows)
    : weight_(weight),
      kernels_(CurrentLinearKernels()),
      bfloat16_(CurrentBFloat16Kernels()),
      blocks_(BlocksOf(weight.in)),
      panel_bytes_(weight.panel_bytes()) {
  ChoosePath(rows);
  Pack(x, rows);
  const int64_t lanes = path_ == Path::kFloat32 ? 32 : path_ == Path::kBFloat16 ? 16 : 12;
  const int64_t operations = blocks_ * (lanes * rows + 96);
  const int64_t share = PanelsOf(weight.out) / (4 * ThreadCount());
  const int64_t at_once = PanelsAtOnce(rows);
  grain_ = std::min(share, (kChunkOperations + operations - 1) / operations);
  grain_ = std::max<int64_t>(1, (grain_ + at_once - 1) / at_once) * at_once;
}

void PanelProducts::ChoosePath(int64_t rows) {
  const PanelFormat format = weight_.format;
  switch (weight_.compute) {
    case Compute::kInt8:
    case Compute::kInt4:
      if (kernels_.int8[static_cast<int>(format)][1]) {
        path_ = Path::kInt8;
        return;
      }
      round_ = true;
      break;
    case Compute::kBFloat16:
      if (bfloat16_ != nullptr) {
        path_ = Path::kBFloat16;
        unpack_ = format != PanelFormat::kBFloat16;
        return;
      }
      round_ = true;
      break;
    case Compute::kFloat16:  // PackWeight makes none
    case Compute::kFloat32: break;
  }
  path_ = Path::kFloat32;
  unpack_ = format == PanelFormat::kInt8 ||
            (format != PanelFormat::kFloat32 && rows > kFewTiles * kernels_.max_tokens);
}

int64_t PanelProducts::WordsPerRow() const {
  switch (path_) {
    case Path::kBFloat16: return blocks_ * kBlockInputs / 2;
    case Path::kInt8: return blocks_ * kInt8BlockWords;
    case Path::kFloat32: break;
  }
  return blocks_ * kBlockInputs;
}

void PanelProducts::Pack(const float* x, int64_t rows) {
  constexpr auto kWordBytes = static_cast<int64_t>(sizeof(uint32_t));
  const int64_t in = weight_.in;
  const int64_t most = path_ == Path::kInt8 ? kernels_.max_int8_tokens : kernels_.max_tokens;
  const int64_t count = (rows + most - 1) / most;
  const int64_t words_per_row = WordsPerRow();
  packed_.emplace(rows * words_per_row * kWordBytes);
  auto* const packed = packed_->As<uint32_t>();
  std::optional<Scratch> rounded;
  if (round_) {
    rounded.emplace(rows * in * kWordBytes);
    std::copy_n(x, rows * in, rounded->As<float>());
    Round(kernels_, weight_.compute, rounded->As<float>(), rows, in);
    x = rounded->As<float>();
  }
  token_tiles_.resize(count);
  for (int64_t i = 0, first = 0; i < count; ++i) {
    const int tokens = static_cast<int>(rows / count + (i < rows % count ? 1 : 0));
    token_tiles_[i] = {first, tokens, packed + first * words_per_row};
    first += tokens;
  }
  const auto pack = path_ == Path::kFloat32    ? kernels_.pack_float32
                    : path_ == Path::kBFloat16 ? bfloat16_->pack
                                               : kernels_.pack_int8;
  const int64_t grain = std::max<int64_t>(1, kSerialInputs / (most * in));
  ParallelFor(0, count, rows * in <= kSerialInputs ? count : grain,
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                  const TokenTile& tile = token_tiles_[i];
                  pack({x + tile.first * in, in, tile.tokens, const_cast<uint32_t*>(tile.packed)});
                }
              });
}

PanelKernel PanelProducts::KernelFor(int tokens) const {
  const PanelFormat format = unpack_ ? PanelFormat::kFloat32 : weight_.format;
  switch (path_) {
    case Path::kBFloat16: return bfloat16_->products[tokens];
    case Path::kInt8: return kernels_.int8[static_cast<int>(format)][tokens];
    case Path::kFloat32: break;
  }
  return kernels_.float32[static_cast<int>(format)][tokens];
}

void PanelProducts::Compute(int64_t first_panel, int64_t panels, float* y, int64_t y_stride) const {
  const uint8_t* weights = weight_.panels.get() + first_panel * panel_bytes_;
  const float* bias =
      weight_.bias.empty() ? nullptr : weight_.bias.data() + first_panel * kPanelOutputs;
  const int64_t outputs =
      std::min(panels * kPanelOutputs, weight_.out - first_panel * kPanelOutputs);
  PanelProduct product{weights, panel_bytes_, blocks_, bias, nullptr, y, y_stride, outputs};
  if (!unpack_) {
    for (const TokenTile& tile : token_tiles_) {
      product.activations = tile.packed;
      product.y = y + tile.first * y_stride;
      KernelFor(tile.tokens)(product);
    }
    return;
  }
  const Scratch panel_memory(blocks_ * BlockBytes(PanelFormat::kFloat32));
  auto* const wide = panel_memory.As<uint32_t>();
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t first = panel * kPanelOutputs;
    if (path_ == Path::kBFloat16) {
      bfloat16_->narrow(weight_.format, weights + panel * panel_bytes_, blocks_, wide);
    } else {
      kernels_.widen(weight_.format, weights + panel * panel_bytes_, blocks_,
                     reinterpret_cast<float*>(wide));
    }
    product.panels = reinterpret_cast<const uint8_t*>(wide);
    product.bias = bias ? bias + first : nullptr;
    product.outputs = std::min(kPanelOutputs, outputs - first);
    for (const TokenTile& tile : token_tiles_) {
      product.activations = tile.packed;
      product.y = y + tile.first * y_stride + first;
      KernelFor(tile.tokens)(product);
    }
  }
}

void RoundActivations(Compute compute, float* x, int64_t rows, int64_t in) {
  Round(CurrentLinearKernels(), compute, x, rows, in);
}

}  // namespace lmfusion
