#include "ops/pack_weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <string>

#include "ops/linear_kernels.h"
#include "ops/parallel.h"
#include "ops/weight_blocks.h"

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
  message << "packed matrix: a weight of type " << InfoOf(rows.type).name << " must be "
          << expected << ", got " << rows.data.sizes() << " of " << rows.data.dtype();
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

// Calls write(row, output, panel bytes) for every row, panel by panel on all threads.
template <class Write>
void ForEachRow(const PackedPanels& packed, Write write) {
  const int64_t panel_bytes = PanelBytes(packed.format, BlocksOf(packed.in));
  uint8_t* panels = packed.panels.data_ptr<uint8_t>();
  ParallelFor(0, PanelsOf(packed.out), 4, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      for (int64_t i = 0; i < kPanelOutputs; ++i) {
        const int64_t row = panel * kPanelOutputs + i;
        if (row < packed.out) write(row, i, panels + panel * panel_bytes);
      }
    }
  });
}

PackedPanels Empty(PanelFormat format, int64_t out, int64_t in) {
  const int64_t bytes = PanelsOf(out) * PanelBytes(format, BlocksOf(in));
  return {format, out, in, at::zeros({bytes}, at::kByte)};
}

PackedPanels PackFloats(const at::Tensor& weight, Compute compute, bool fits_bfloat16) {
  const int64_t out = weight.size(0), in = weight.size(1);
  const PanelFormat format = compute == Compute::kInt8   ? PanelFormat::kQ8
                             : compute == Compute::kInt4 ? PanelFormat::kQ4
                             : compute == Compute::kBFloat16 || fits_bfloat16
                                 ? PanelFormat::kBFloat16
                                 : PanelFormat::kFloat32;
  PackedPanels packed = Empty(format, out, in);
  const bool quantized = format == PanelFormat::kQ8 || format == PanelFormat::kQ4;
  if (quantized && !at::isfinite(weight).all().item<bool>()) {
    throw std::invalid_argument(
        "packed matrix: a weight that is not finite has no 8-bit or 4-bit form; use float32");
  }
  const float* source = weight.data_ptr<float>();
  const int64_t blocks = BlocksOf(in);
  ForEachRow(packed, [&](int64_t row, int64_t output, uint8_t* panel) {
    for (int64_t b = 0; b < blocks; ++b) {
      float w[kBlockInputs] = {};
      const int64_t n = std::min(kBlockInputs, in - b * kBlockInputs);
      std::memcpy(w, source + row * in + b * kBlockInputs, n * sizeof(float));
      uint8_t* words = panel + b * BlockBytes(format) + 4 * output;
      switch (format) {
        case PanelFormat::kFloat32:
          for (int i = 0; i < kBlockInputs; ++i) std::memcpy(words + i * kWordRowBytes, w + i, 4);
          break;
        case PanelFormat::kBFloat16:
          for (int i = 0; i < kBlockInputs; ++i) {
            const c10::BFloat16 rounded(w[i]);
            std::memcpy(words + i / 2 * kWordRowBytes + i % 2 * 2, &rounded.x, 2);
          }
          break;
        case PanelFormat::kQ4: WriteBlock(QuantizeQ4(w), output, panel, b); break;
        case PanelFormat::kQ8: WriteBlock(QuantizeQ8(w), output, panel, b, blocks); break;
      }
    }
  });
  return packed;
}

PackedPanels PackBlocks(const at::Tensor& data, WeightType type, int64_t in) {
  const bool q8 = type == WeightType::kQ8_0;
  PackedPanels packed = Empty(q8 ? PanelFormat::kQ8 : PanelFormat::kQ4, data.size(0), in);
  const uint8_t* source = data.data_ptr<uint8_t>();
  const int64_t blocks = BlocksOf(in), block_bytes = InfoOf(type).block_bytes;
  ForEachRow(packed, [&](int64_t row, int64_t output, uint8_t* panel) {
    for (int64_t b = 0; b < blocks; ++b) {
      const uint8_t* block = source + (row * blocks + b) * block_bytes;
      if (q8) {
        WriteBlock(ReadQ8_0(block), output, panel, b, blocks);
      } else {
        WriteBlock(type == WeightType::kQ4_0 ? ReadQ4_0(block) : ReadQ4_1(block), output, panel,
                   b);
      }
    }
  });
  return packed;
}

at::Tensor ToFloat(const WeightRows& rows) {
  if (rows.type == WeightType::kFloat) return rows.data.to(at::kFloat).contiguous();
  return WidenPanels(PackBlocks(rows.data.contiguous(), rows.type, InputsOf(rows)));
}

// Whether the low halves of all float32 values are zero (NaN and infinity included).
bool FitsBFloat16(const at::Tensor& weight) {
  const float* values = weight.data_ptr<float>();
  const int64_t count = weight.numel();
  uint32_t low_bits = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof(bits));
    low_bits |= bits & 0xffff;
  }
  return low_bits == 0;
}

}  // namespace

const char* Name(WeightType type) { return InfoOf(type).name; }

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

PackedPanels PackWeights(const std::vector<WeightRows>& stacked, Compute compute) {
  if (stacked.empty()) throw std::invalid_argument("packed matrix: no weight given");
  bool one_type = true;
  const int64_t in = InputsOf(stacked[0]);
  for (const WeightRows& rows : stacked) {
    if (InputsOf(rows) != in) {
      Refuse(rows, ("as wide as the first of its stack (" + std::to_string(in) + ")").c_str());
    }
    one_type = one_type && rows.type == stacked[0].type;
  }
  const WeightType type = stacked[0].type;
  std::vector<at::Tensor> parts;
  // Rounded to bfloat16 each time they are used, blocks are slower than bfloat16 panels from about
  // ten rows on.
  const bool keep_blocks =
      one_type && type != WeightType::kFloat && compute != Compute::kBFloat16;
  for (const WeightRows& rows : stacked) {
    if (keep_blocks) {
      parts.push_back(rows.data.cpu().contiguous());
    } else {
      parts.push_back(ToFloat({rows.data.cpu(), rows.type}));
    }
  }
  const at::Tensor all = parts.size() == 1 ? parts[0] : at::cat(parts, 0);
  if (all.scalar_type() == at::kByte) return PackBlocks(all, type, in);
  return PackFloats(all, compute, compute == Compute::kFloat32 && FitsBFloat16(all));
}

}  // namespace lmfusion
