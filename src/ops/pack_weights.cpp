#include "ops/pack_weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>

#include "kernels/linear/linear_kernels.h"
#include "kernels/linear/weight_blocks.h"
#include "kernels/linear/weight_memory.h"
#include "kernels/threads/parallel.h"

namespace lmfusion {
namespace {

struct TypeInfo {
  const char* name;
  int64_t block_bytes;  // 0: floats
};

TypeInfo InfoOf(WeightType type) {
  switch (type) {
    case WeightType::kFloat: return {"float", 0};
    case WeightType::kQ4_0: return {"q4_0", 18};
    case WeightType::kQ4_1: return {"q4_1", 20};
    case WeightType::kQ8_0: return {"q8_0", 34};
  }
  return {"", 0};
}

[[noreturn]] void Refuse(const WeightRows& rows, const char* expected) {
  std::ostringstream message;
  message << "packed matrix: a weight of type " << InfoOf(rows.type).name << " must be " << expected
          << ", got " << rows.data.sizes() << " of " << rows.data.dtype();
  throw std::invalid_argument(message.str());
}

int64_t InputsOf(const WeightRows& rows) {
  if (rows.data.dim() != 2 || rows.data.size(0) == 0 || rows.data.size(1) == 0) {
    Refuse(rows, "a matrix that is not empty");
  }
  const int64_t bytes = InfoOf(rows.type).block_bytes;
  if (bytes == 0) {
    if (!at::isFloatingType(rows.data.scalar_type())) Refuse(rows, "of a floating type");
    return rows.data.size(1);
  }
  if (rows.data.scalar_type() != at::kByte || rows.data.size(1) % bytes != 0) {
    Refuse(rows, "uint8 rows of whole blocks");
  }
  return rows.data.size(1) / bytes * kBlockInputs;
}

// Matrices of one width, one below the other, read where they are.
struct Stack {
  std::vector<WeightRows> parts;  // float32 or bfloat16, of any strides; or blocks, contiguous
  int64_t out = 0, in = 0;
};

// The bytes of one row, and how far apart its weights are (its blocks, if it has blocks).
struct Row {
  const uint8_t* data;
  int64_t stride;  // in bytes
  WeightType type;
  bool bfloat16;
};

Row RowOf(const Stack& stack, int64_t row) {
  size_t part = 0;
  while (row >= stack.parts[part].data.size(0)) row -= stack.parts[part++].data.size(0);
  const auto& [rows, type] = stack.parts[part];
  const auto size = static_cast<int64_t>(rows.element_size());
  const int64_t block = BlockBytes(type);
  return {static_cast<const uint8_t*>(rows.const_data_ptr()) + row * rows.stride(0) * size,
          block > 0 ? block : rows.stride(1) * size, type, rows.scalar_type() == at::kBFloat16};
}

Q4Weights ReadQ4(const uint8_t* block, WeightType type) {
  return type == WeightType::kQ4_0 ? ReadQ4_0(block) : ReadQ4_1(block);
}

// The weights of a block of inputs, zeros after the last of `in` inputs.
void ReadFloats(const Row& row, int64_t block, int64_t in, float* w) {
  if (row.type == WeightType::kFloat) {
    const int64_t first = block * kBlockInputs, count = std::min(kBlockInputs, in - first);
    const uint8_t* from = row.data + first * row.stride;
    for (int64_t i = 0; i < count; ++i, from += row.stride) {
      uint32_t bits = 0;
      if (row.bfloat16) {
        uint16_t half;
        std::memcpy(&half, from, sizeof(half));
        bits = static_cast<uint32_t>(half) << 16;
      } else {
        std::memcpy(&bits, from, sizeof(bits));
      }
      std::memcpy(w + i, &bits, sizeof(bits));
    }
    std::fill(w + count, w + kBlockInputs, 0.0f);
  } else if (row.type == WeightType::kQ8_0) {
    WeightsOf(ReadQ8_0(row.data + block * row.stride), w);
  } else {
    WeightsOf(ReadQ4(row.data + block * row.stride, row.type), w);
  }
}

// Calls write(row, output, panel bytes) for every row, panel by panel on all threads.
template <class Write>
void ForEachRow(const PackedPanels& packed, Write write) {
  const int64_t panel_bytes = PanelBytes(packed.format, BlocksOf(packed.in));
  uint8_t* panels = packed.panels.data_ptr<uint8_t>();
  ParallelFor(0, PanelsOf(packed.out), 4, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      uint8_t* bytes = panels + panel * panel_bytes;
      for (int64_t i = 0; i < kPanelOutputs; ++i) {
        const int64_t row = panel * kPanelOutputs + i;
        if (row < packed.out) write(row, i, bytes);
      }
    }
  });
}

PackedPanels Zeros(PanelFormat format, int64_t out, int64_t in) {
  const int64_t bytes = PanelsOf(out) * PanelBytes(format, BlocksOf(in));
  return {format, out, in, WeightMemory(bytes)};
}

// Whether the low halves of all float32 values are zero (NaN and infinity included).
bool FitsBFloat16(const Stack& stack) {
  std::atomic<bool> fits{true};
  ParallelFor(0, stack.out, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end && fits; ++row) {
      const Row source = RowOf(stack, row);
      if (source.bfloat16) continue;
      uint32_t low_bits = 0;
      for (int64_t b = 0; b < BlocksOf(stack.in); ++b) {
        float w[kBlockInputs];
        ReadFloats(source, b, stack.in, w);
        uint32_t bits[kBlockInputs];
        std::memcpy(bits, w, sizeof(bits));
        for (const uint32_t word : bits) low_bits |= word & 0xffff;
      }
      if (low_bits != 0) fits = false;
    }
  });
  return fits;
}

PanelFormat FormatOf(const Stack& stack, Compute compute) {
  switch (compute) {
    case Compute::kInt8: return PanelFormat::kInt8;
    case Compute::kInt4: {  // what a file has in 8 bits keeps 8 bits
      const bool bytes = std::all_of(stack.parts.begin(), stack.parts.end(), [](const auto& part) {
        return part.type == WeightType::kQ8_0;
      });
      return bytes ? PanelFormat::kInt8 : PanelFormat::kQ4;
    }
    case Compute::kBFloat16: return PanelFormat::kBFloat16;
    case Compute::kFloat32: break;
  }
  return FitsBFloat16(stack) ? PanelFormat::kBFloat16 : PanelFormat::kFloat32;
}

// One row's weights [blocks * kBlockInputs] into lane `output` of a panel.
void WriteRow(PanelFormat format, const float* row, int64_t blocks, int64_t output,
              uint8_t* panel) {
  if (format == PanelFormat::kInt8) return WriteInt8(row, blocks, output, panel);
  for (int64_t b = 0; b < blocks; ++b) {
    const float* w = row + b * kBlockInputs;
    uint8_t* words = panel + b * BlockBytes(format) + 4 * output;
    if (format == PanelFormat::kQ4) {
      WriteBlock(QuantizeQ4(w), output, panel, b);
    } else if (format == PanelFormat::kFloat32) {
      for (int i = 0; i < kBlockInputs; ++i) std::memcpy(words + i * kWordRowBytes, w + i, 4);
    } else {
      for (int i = 0; i < kBlockInputs; i += 2) {
        const uint16_t pair[] = {c10::BFloat16(w[i]).x, c10::BFloat16(w[i + 1]).x};
        std::memcpy(words + i / 2 * kWordRowBytes, pair, sizeof(pair));
      }
    }
  }
}

PackedPanels PackFloats(const Stack& stack, PanelFormat format) {
  PackedPanels packed = Zeros(format, stack.out, stack.in);
  const bool quantized = format == PanelFormat::kInt8 || format == PanelFormat::kQ4;
  std::atomic<bool> all_finite{true};
  const int64_t blocks = BlocksOf(stack.in);
  ForEachRow(packed, [&](int64_t row, int64_t output, uint8_t* panel) {
    thread_local std::vector<float> weights;
    weights.resize(blocks * kBlockInputs);
    const Row source = RowOf(stack, row);
    for (int64_t b = 0; b < blocks; ++b) {
      ReadFloats(source, b, stack.in, weights.data() + b * kBlockInputs);
    }
    const auto is_finite = [](float x) { return std::isfinite(x); };
    if (quantized && !std::all_of(weights.begin(), weights.end(), is_finite)) {
      all_finite = false;
      return;
    }
    WriteRow(format, weights.data(), blocks, output, panel);
  });
  if (!all_finite) {
    throw std::invalid_argument(
        "packed matrix: a weight that is not finite has no 8-bit or 4-bit form; use float32");
  }
  return packed;
}

PackedPanels PackBlocks(const Stack& stack, WeightType type) {
  const bool q8 = type == WeightType::kQ8_0;
  PackedPanels packed = Zeros(q8 ? PanelFormat::kQ8 : PanelFormat::kQ4, stack.out, stack.in);
  const int64_t blocks = BlocksOf(stack.in);
  ForEachRow(packed, [&](int64_t row, int64_t output, uint8_t* panel) {
    const Row source = RowOf(stack, row);
    for (int64_t b = 0; b < blocks; ++b) {
      const uint8_t* block = source.data + b * source.stride;
      if (q8) {
        WriteBlock(ReadQ8_0(block), output, panel, b, blocks);
      } else {
        WriteBlock(ReadQ4(block, type), output, panel, b);
      }
    }
  });
  return packed;
}

}  // namespace

int64_t BlockBytes(WeightType type) { return InfoOf(type).block_bytes; }

at::Tensor WidenPanels(const PackedPanels& packed) {
  at::Tensor wide = at::empty({packed.out, packed.in}, at::kFloat);
  const int64_t blocks = BlocksOf(packed.in), bytes = PanelBytes(packed.format, blocks);
  const uint8_t* panels = packed.panels.data_ptr<uint8_t>();
  const auto widen = CurrentLinearKernels().widen;
  ParallelFor(0, PanelsOf(packed.out), 4, [&](int64_t begin, int64_t end) {
    std::vector<float> columns(blocks * kBlockInputs * kPanelOutputs);
    for (int64_t panel = begin; panel < end; ++panel) {
      widen(packed.format, panels + panel * bytes, blocks, columns.data());
      const int64_t rows = std::min(kPanelOutputs, packed.out - panel * kPanelOutputs);
      float* out = wide.data_ptr<float>() + panel * kPanelOutputs * packed.in;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < packed.in; ++i) {
          out[r * packed.in + i] = columns[i * kPanelOutputs + r];
        }
      }
    }
  });
  return wide;
}

bool KeepsWeights(const WeightRows& rows, Compute compute) {
  switch (compute) {
    case Compute::kFloat32: return true;
    // Rounded each time they are used, blocks are slower from about ten rows on.
    case Compute::kBFloat16: return rows.data.scalar_type() == at::kBFloat16;
    case Compute::kInt8: return false;
    case Compute::kInt4: break;
  }
  return rows.type == WeightType::kQ4_0 || rows.type == WeightType::kQ4_1;
}

PackedPanels PackWeights(const std::vector<WeightRows>& stacked, Compute compute) {
  if (stacked.empty()) throw std::invalid_argument("packed matrix: no weight given");
  Stack stack;
  stack.in = InputsOf(stacked[0]);
  const WeightType type = stacked[0].type;
  bool one_type = true;
  for (const WeightRows& rows : stacked) {
    if (InputsOf(rows) != stack.in) {
      const std::string width = std::to_string(stack.in);
      Refuse(rows, ("as wide as the first of its stack (" + width + ")").c_str());
    }
    one_type = one_type && rows.type == type;
    at::Tensor part = rows.data.cpu();
    if (rows.type != WeightType::kFloat) {
      part = part.contiguous();
    } else if (part.scalar_type() != at::kFloat && part.scalar_type() != at::kBFloat16) {
      part = part.to(at::kFloat);
    }
    stack.out += part.size(0);
    stack.parts.push_back({std::move(part), rows.type});
  }
  if (one_type && type != WeightType::kFloat && KeepsWeights(stacked[0], compute)) {
    return PackBlocks(stack, type);
  }
  return PackFloats(stack, FormatOf(stack, compute));
}

}  // namespace lmfusion
