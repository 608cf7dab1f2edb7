#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "kernels/device/numbers.h"
#include "kernels/linear/packed_weight.h"
#include "kernels/linear/weight_blocks.h"
#include "kernels/linear/weight_memory.h"
#include "kernels/threads/parallel.h"
#include "kernels/threads/scratch.h"

namespace lmfusion {
namespace {

using Stack = std::vector<WeightMatrix>;

// One output's weights, as its matrix has them.
struct Source {
  const uint8_t* data;
  int64_t stride;
  WeightType type;
  bool bfloat16;
};

// The outputs of one panel, which are read here where they are not in memory.
class PanelOutputs {
 public:
  PanelOutputs(const Stack& stack, int64_t panel, int64_t out)
      : count_(std::min(kPanelOutputs, out - panel * kPanelOutputs)) {
    int64_t row_bytes = 0;
    for (const WeightMatrix& matrix : stack) {
      if (matrix.read) row_bytes = std::max(row_bytes, matrix.row_stride);
    }
    if (row_bytes > 0) memory_.emplace(count_ * row_bytes);
    uint8_t* memory = memory_ ? memory_->As<uint8_t>() : nullptr;
    int64_t end = -panel * kPanelOutputs;  // of a matrix, from the first output of the panel on
    for (const WeightMatrix& matrix : stack) {
      const int64_t begin = end;
      end += matrix.out;
      const int64_t first = std::max<int64_t>(0, begin), last = std::min(count_, end);
      if (first >= last) continue;
      const uint8_t* rows =
          static_cast<const uint8_t*>(matrix.data) + (first - begin) * matrix.row_stride;
      if (matrix.read) {
        const int64_t bytes = (last - first) * matrix.row_stride;
        matrix.read(rows, bytes, memory);
        rows = memory;
        memory += bytes;
      }
      for (int64_t i = first; i < last; ++i) {
        sources_[i] = {rows + (i - first) * matrix.row_stride, matrix.stride, matrix.type,
                       matrix.bfloat16};
      }
    }
  }

  int64_t count() const { return count_; }
  const Source& operator[](int64_t i) const { return sources_[i]; }

 private:
  const int64_t count_;
  std::optional<Scratch> memory_;
  Source sources_[kPanelOutputs];
};

Q4Weights ReadQ4(const uint8_t* block, WeightType type) {
  return type == WeightType::kQ4_0 ? ReadQ4_0(block) : ReadQ4_1(block);
}

// The weights of a block of inputs, zeros after the last of `in` inputs.
void ReadFloats(const Source& source, int64_t block, int64_t in, float* w) {
  if (source.type == WeightType::kFloat) {
    const int64_t first = block * kBlockInputs, count = std::min(kBlockInputs, in - first);
    const uint8_t* from = source.data + first * source.stride;
    for (int64_t i = 0; i < count; ++i, from += source.stride) {
      uint32_t bits = 0;
      if (source.bfloat16) {
        uint16_t half;
        std::memcpy(&half, from, sizeof(half));
        bits = static_cast<uint32_t>(half) << 16;
      } else {
        std::memcpy(&bits, from, sizeof(bits));
      }
      std::memcpy(w + i, &bits, sizeof(bits));
    }
    std::fill(w + count, w + kBlockInputs, 0.0f);
  } else if (source.type == WeightType::kQ8_0) {
    WeightsOf(ReadQ8_0(source.data + block * source.stride), w);
  } else {
    WeightsOf(ReadQ4(source.data + block * source.stride, source.type), w);
  }
}

// Memory of zeros for all panels, then write(source, lane, bytes of its panel) for every output of
// the stack, panel by panel on all threads.
template <class Write>
void WritePanels(const Stack& stack, PackedWeight* packed, Write write) {
  const int64_t panel_bytes = packed->panel_bytes();
  std::shared_ptr<uint8_t> memory = WeightMemory(PanelsOf(packed->out) * panel_bytes);
  ParallelFor(0, PanelsOf(packed->out), 4, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      uint8_t* bytes = memory.get() + panel * panel_bytes;
      const PanelOutputs outputs(stack, panel, packed->out);
      for (int64_t lane = 0; lane < outputs.count(); ++lane) write(outputs[lane], lane, bytes);
    }
  });
  packed->panels = std::move(memory);
}

// All bits that are set in the low half of any of its float32 values.
uint32_t LowBits(const Source& source, int64_t in) {
  uint32_t low_bits = 0;
  for (int64_t b = 0; b < BlocksOf(in); ++b) {
    float w[kBlockInputs];
    ReadFloats(source, b, in, w);
    uint32_t bits[kBlockInputs];
    std::memcpy(bits, w, sizeof(bits));
    for (const uint32_t word : bits) low_bits |= word & 0xffff;
  }
  return low_bits;
}

// Whether the low halves of all float32 values are zero (NaN and infinity included).
bool FitsBFloat16(const Stack& stack, int64_t out, int64_t in) {
  if (std::all_of(stack.begin(), stack.end(), [](const auto& matrix) { return matrix.bfloat16; })) {
    return true;
  }
  std::atomic<bool> fits{true};
  ParallelFor(0, PanelsOf(out), 4, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end && fits; ++panel) {
      const PanelOutputs outputs(stack, panel, out);
      for (int64_t i = 0; i < outputs.count() && fits; ++i) {
        if (LowBits(outputs[i], in) != 0) fits = false;
      }
    }
  });
  return fits;
}

// Of compute = "int4": what a file has in 8 bits keeps 8 bits.
PanelFormat Int4FormatOf(const Stack& stack) {
  const bool bytes = std::all_of(stack.begin(), stack.end(), [](const auto& matrix) {
    return matrix.type == WeightType::kQ8_0;
  });
  return bytes ? PanelFormat::kInt8 : PanelFormat::kQ4;
}

PanelFormat FormatOf(const Stack& stack, int64_t out, int64_t in, Compute compute) {
  switch (compute) {
    case Compute::kInt8: return PanelFormat::kInt8;
    case Compute::kInt4: return Int4FormatOf(stack);
    case Compute::kBFloat16: return PanelFormat::kBFloat16;
    case Compute::kFloat16:
      throw std::invalid_argument("compute = \"float16\": the CPU has no such products");
    case Compute::kFloat32: break;
  }
  return FitsBFloat16(stack, out, in) ? PanelFormat::kBFloat16 : PanelFormat::kFloat32;
}

// One output's weights [blocks * kBlockInputs] into a lane of a panel.
void WriteLane(PanelFormat format, const float* weights, int64_t blocks, int64_t lane,
               uint8_t* panel) {
  if (format == PanelFormat::kInt8) return WriteInt8(weights, blocks, lane, panel);
  for (int64_t b = 0; b < blocks; ++b) {
    const float* w = weights + b * kBlockInputs;
    uint8_t* words = panel + b * BlockBytes(format) + 4 * lane;
    if (format == PanelFormat::kQ4) {
      WriteBlock(QuantizeQ4(w), lane, panel, b);
    } else if (format == PanelFormat::kFloat32) {
      for (int i = 0; i < kBlockInputs; ++i) std::memcpy(words + i * kWordRowBytes, w + i, 4);
    } else {
      for (int i = 0; i < kBlockInputs; i += 2) {
        const BFloat16 pair[] = {Convert<BFloat16>::From(w[i]), Convert<BFloat16>::From(w[i + 1])};
        std::memcpy(words + i / 2 * kWordRowBytes, pair, sizeof(pair));
      }
    }
  }
}

void PackFloats(const Stack& stack, PackedWeight* packed) {
  const bool quantized = packed->format == PanelFormat::kInt8 || packed->format == PanelFormat::kQ4;
  std::atomic<bool> all_finite{true};
  const int64_t blocks = BlocksOf(packed->in);
  WritePanels(stack, packed, [&](const Source& source, int64_t lane, uint8_t* panel) {
    const Scratch scratch(blocks * kBlockInputs * static_cast<int64_t>(sizeof(float)));
    auto* const weights = scratch.As<float>();
    for (int64_t b = 0; b < blocks; ++b) {
      ReadFloats(source, b, packed->in, weights + b * kBlockInputs);
    }
    const auto is_finite = [](float x) { return std::isfinite(x); };
    if (quantized && !std::all_of(weights, weights + blocks * kBlockInputs, is_finite)) {
      all_finite = false;
      return;
    }
    WriteLane(packed->format, weights, blocks, lane, panel);
  });
  if (!all_finite) {
    throw std::invalid_argument(
        "packed matrix: a weight that is not finite has no 8-bit or 4-bit form; use float32");
  }
}

void PackBlocks(const Stack& stack, WeightType type, PackedWeight* packed) {
  const int64_t blocks = BlocksOf(packed->in);
  WritePanels(stack, packed, [&](const Source& source, int64_t lane, uint8_t* panel) {
    for (int64_t b = 0; b < blocks; ++b) {
      const uint8_t* block = source.data + b * source.stride;
      if (type == WeightType::kQ8_0) {
        WriteBlock(ReadQ8_0(block), lane, panel, b, blocks);
      } else {
        WriteBlock(ReadQ4(block, type), lane, panel, b);
      }
    }
  });
}

}  // namespace

bool KeepsWeights(WeightType type, bool bfloat16, Compute compute) {
  switch (compute) {
    case Compute::kFloat32: return true;
    // Rounded each time they are used, blocks are slower from about ten rows on.
    case Compute::kBFloat16: return type == WeightType::kFloat && bfloat16;
    case Compute::kFloat16:
    case Compute::kInt8: return false;
    case Compute::kInt4: break;
  }
  return type == WeightType::kQ4_0 || type == WeightType::kQ4_1;
}

PackedWeight PackWeight(const std::vector<WeightMatrix>& stacked, const float* bias,
                        Compute compute) {
  PackedWeight packed;
  packed.compute = compute;
  packed.in = stacked[0].in;
  for (const WeightMatrix& matrix : stacked) packed.out += matrix.out;
  if (bias != nullptr) {
    packed.bias.assign(bias, bias + packed.out);
    packed.bias.resize(PanelsOf(packed.out) * kPanelOutputs);  // kernels read whole panels
  }
  const WeightType type = stacked[0].type;
  const bool one_type = std::all_of(stacked.begin(), stacked.end(),
                                    [type](const auto& matrix) { return matrix.type == type; });
  if (one_type && type != WeightType::kFloat && KeepsWeights(type, false, compute)) {
    packed.format = type == WeightType::kQ8_0 ? PanelFormat::kQ8 : PanelFormat::kQ4;
    PackBlocks(stacked, type, &packed);
  } else {
    packed.format = FormatOf(stacked, packed.out, packed.in, compute);
    PackFloats(stacked, &packed);
  }
  return packed;
}

}  // namespace lmfusion
