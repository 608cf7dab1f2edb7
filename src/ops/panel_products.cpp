#include "ops/panel_products.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstring>

#include "kernels/threads/parallel.h"

namespace lmfusion {
namespace {

// Vector operations of a piece of work: about five microseconds.
constexpr int64_t kPieceOperations = 16384;
// Inputs that one thread packs in about the time that it takes another one to join it.
constexpr int64_t kSerialInputs = 16384;
// Of token blocks: so many times weights are unpacked in registers rather than once in memory.
constexpr int64_t kFewBlocks = 2;
// With a format that must be unpacked: as many rows as make unpacking cheaper than float32.
constexpr int64_t kFewRows = 4;

// Memory of a thread that only grows: 64-byte aligned words.
uint32_t* Scratch(std::vector<uint32_t>* memory, int64_t words) {
  constexpr int64_t kAlignment = 16;
  if (static_cast<int64_t>(memory->size()) < words + kAlignment) {
    memory->resize(words + kAlignment);
  }
  const auto address = reinterpret_cast<uintptr_t>(memory->data());
  return memory->data() + (64 - address % 64) % 64 / sizeof(uint32_t);
}

float Rounded(float value) { return static_cast<float>(c10::BFloat16(value)); }

}  // namespace

PanelProducts::PanelProducts(const PackedMatrix& matrix, const float* x, int64_t rows)
    : matrix_(matrix),
      kernels_(CurrentLinearKernels()),
      blocks_(BlocksOf(matrix.in_features())),
      panel_bytes_(PanelBytes(matrix.panel_format(), blocks_)) {
  ChoosePath(rows);
  Pack(x, rows);
  const int64_t lanes = path_ == Path::kFloat32 ? 32 : path_ == Path::kBFloat16 ? 16 : 12;
  const int64_t operations = blocks_ * (lanes * rows + 96);
  const int64_t share = PanelsOf(matrix.out_features()) / (4 * at::get_num_threads());
  grain_ = std::max<int64_t>(
      1, std::min<int64_t>(share, (kPieceOperations + operations - 1) / operations));
}

void PanelProducts::ChoosePath(int64_t rows) {
  const PanelFormat format = matrix_.panel_format();
  const bool quantized = format == PanelFormat::kQ4 || format == PanelFormat::kQ8;
  switch (matrix_.compute()) {
    case Compute::kInt8:
    case Compute::kInt4:
      if (kernels_.int8[static_cast<int>(format)][1]) {
        path_ = Path::kInt8;
        return;
      }
      round_ = true;
      break;
    case Compute::kBFloat16:
      if (kernels_.bfloat16[1] && !(quantized && rows <= kFewRows)) {
        path_ = Path::kBFloat16;
        unpack_ = format != PanelFormat::kBFloat16;
        return;
      }
      round_ = true;
      break;
    case Compute::kFloat32: break;
  }
  path_ = Path::kFloat32;
  unpack_ = format == PanelFormat::kInt8 ||
            (format != PanelFormat::kFloat32 && rows > kFewBlocks * kernels_.max_tokens);
}

void PanelProducts::Pack(const float* x, int64_t rows) {
  const int64_t in = matrix_.in_features();
  const int64_t most = path_ == Path::kInt8 ? kernels_.max_int8_tokens : kernels_.max_tokens;
  const int64_t count = (rows + most - 1) / most;
  const int64_t words_per_row = blocks_ * (path_ == Path::kFloat32    ? kBlockInputs
                                           : path_ == Path::kBFloat16 ? kBlockInputs / 2
                                                                      : kInt8BlockWords);
  thread_local std::vector<uint32_t> packed_memory, rounded_memory;
  uint32_t* packed = Scratch(&packed_memory, rows * words_per_row);
  if (round_) {
    float* rounded = reinterpret_cast<float*>(Scratch(&rounded_memory, rows * in));
    std::copy_n(x, rows * in, rounded);
    RoundActivations(matrix_.compute(), rounded, rows, in);
    x = rounded;
  }
  token_blocks_.resize(count);
  for (int64_t i = 0, first = 0; i < count; ++i) {
    const int tokens = static_cast<int>(rows / count + (i < rows % count ? 1 : 0));
    token_blocks_[i] = {first, tokens, packed + first * words_per_row};
    first += tokens;
  }
  const auto pack = path_ == Path::kFloat32    ? kernels_.pack_float32
                    : path_ == Path::kBFloat16 ? kernels_.pack_bfloat16
                                               : kernels_.pack_int8;
  const int64_t grain = std::max<int64_t>(1, kSerialInputs / (most * in));
  ParallelFor(
      0, count, rows * in <= kSerialInputs ? count : grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const TokenBlock& block = token_blocks_[i];
          pack({x + block.first * in, in, block.tokens, const_cast<uint32_t*>(block.packed)});
        }
      });
}

PanelKernel PanelProducts::KernelFor(int tokens) const {
  const PanelFormat format = unpack_ ? PanelFormat::kFloat32 : matrix_.panel_format();
  switch (path_) {
    case Path::kBFloat16: return kernels_.bfloat16[tokens];
    case Path::kInt8: return kernels_.int8[static_cast<int>(format)][tokens];
    case Path::kFloat32: break;
  }
  return kernels_.float32[static_cast<int>(format)][tokens];
}

void PanelProducts::Compute(int64_t first_panel, int64_t panels, float* y, int64_t y_stride) const {
  const uint8_t* weights = matrix_.panels().const_data_ptr<uint8_t>() + first_panel * panel_bytes_;
  const float* bias = matrix_.bias()
                          ? matrix_.bias()->const_data_ptr<float>() + first_panel * kPanelOutputs
                          : nullptr;
  const int64_t outputs =
      std::min(panels * kPanelOutputs, matrix_.out_features() - first_panel * kPanelOutputs);
  PanelProduct product{weights, panel_bytes_, blocks_, bias, nullptr, y, y_stride, outputs};
  if (!unpack_) {
    for (const TokenBlock& block : token_blocks_) {
      product.activations = block.packed;
      product.y = y + block.first * y_stride;
      KernelFor(block.tokens)(product);
    }
    return;
  }
  thread_local std::vector<uint32_t> panel_memory;
  uint32_t* wide = Scratch(&panel_memory, blocks_ * kBlockInputs * kPanelOutputs);
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t first = panel * kPanelOutputs;
    if (path_ == Path::kBFloat16) {
      kernels_.narrow(matrix_.panel_format(), weights + panel * panel_bytes_, blocks_, wide);
    } else {
      kernels_.widen(matrix_.panel_format(), weights + panel * panel_bytes_, blocks_,
                     reinterpret_cast<float*>(wide));
    }
    product.panels = reinterpret_cast<const uint8_t*>(wide);
    product.bias = bias ? bias + first : nullptr;
    product.outputs = std::min(kPanelOutputs, outputs - first);
    for (const TokenBlock& block : token_blocks_) {
      product.activations = block.packed;
      product.y = y + block.first * y_stride + first;
      KernelFor(block.tokens)(product);
    }
  }
}

void RoundActivations(Compute compute, float* x, int64_t rows, int64_t in) {
  if (compute == Compute::kFloat32) return;
  if (compute == Compute::kBFloat16) {
    std::transform(x, x + rows * in, x, Rounded);
    return;
  }
  std::vector<uint32_t> packed(BlocksOf(in) * kInt8BlockWords);
  for (int64_t row = 0; row < rows; ++row) {
    CurrentLinearKernels().pack_int8({x + row * in, in, 1, packed.data()});
    for (int64_t i = 0; i < in; ++i) {
      const uint32_t* block = packed.data() + i / kBlockInputs * kInt8BlockWords;
      float scale;
      std::memcpy(&scale, block + 8, sizeof(scale));
      const auto* bytes = reinterpret_cast<const int8_t*>(block);
      x[row * in + i] = scale * static_cast<float>(bytes[i % kBlockInputs]);
    }
  }
}

}  // namespace lmfusion
