#include "kernels/linear/weight_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/device/numbers.h"

namespace lmfusion {
namespace {

float FromHalf(uint16_t half) { return ToFloat(Float16{half}); }
uint16_t ToHalf(float value) { return Convert<Float16>::From(value).bits; }

uint16_t ReadHalf(const uint8_t* bytes) {
  uint16_t half;
  std::memcpy(&half, bytes, sizeof(half));
  return half;
}
void WriteHalf(uint16_t half, uint8_t* bytes) { std::memcpy(bytes, &half, sizeof(half)); }

// Sixteen bytes, the low halves of which are the first sixteen weights.
void ReadNibbles(const uint8_t* bytes, uint8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = bytes[i] & 15;
    q[i + 16] = bytes[i] >> 4;
  }
}

float ReadFloat(const uint8_t* bytes) {
  float value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

float ReadBFloat16(const uint8_t* bytes) { return ToFloat(BFloat16{ReadHalf(bytes)}); }

// Rounds weights to a block's minimum and whole steps of its scale; returns the sum of squared
// errors.
float RoundToQ4(const float* weights, Q4Weights* block) {
  const float scale = FromHalf(block->scale), minimum = FromHalf(block->minimum);
  const float inverse = scale > 0 ? 1 / scale : 0;
  float error = 0;
  for (int i = 0; i < kBlockInputs; ++i) {
    const float q = std::nearbyint((weights[i] - minimum) * inverse);
    block->q[i] = static_cast<uint8_t>(std::min(std::max(q, 0.0f), 15.0f));
    const float off = weights[i] - (scale * block->q[i] + minimum);
    error += off * off;
  }
  return error;
}

float Largest(const float* weights, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(weights[i]));
  return largest;
}

// The first `count` weights of a lane of a block of a panel kQ4: w [count].
void ReadQ4Lane(const uint8_t* block, int64_t lane, int64_t count, float* w) {
  const float scale = FromHalf(ReadHalf(block + 2 * lane));
  const float minimum = FromHalf(ReadHalf(block + 2 * (kPanelOutputs + lane)));
  const uint8_t* const words = block + kWordRowBytes + 4 * lane;
  for (int64_t k = 0; k < count; ++k) {
    const uint8_t pair = words[k / 8 * kWordRowBytes + k % 4];
    const int q = k % 8 < 4 ? pair & 15 : pair >> 4;
    w[k] = scale * static_cast<float>(q) + minimum;
  }
}

// The bytes of one output's block, as panels kQ8 and kInt8 hold them.
void WriteBytes(const int8_t* q, uint8_t* words) {
  for (int j = 0; j < 8; ++j) {
    for (int i = 0; i < 4; ++i) {
      words[j * kWordRowBytes + i] = static_cast<uint8_t>(q[4 * j + i] + 128);
    }
  }
}

}  // namespace

Q4Weights ReadQ4_0(const uint8_t* block) {
  Q4Weights weights;
  weights.scale = ReadHalf(block);
  weights.minimum = ToHalf(-8 * FromHalf(weights.scale));
  ReadNibbles(block + 2, weights.q);
  return weights;
}

Q4Weights ReadQ4_1(const uint8_t* block) {
  Q4Weights weights;
  weights.scale = ReadHalf(block);
  weights.minimum = ReadHalf(block + 2);
  ReadNibbles(block + 4, weights.q);
  return weights;
}

Q8Weights ReadQ8_0(const uint8_t* block) {
  Q8Weights weights;
  weights.scale = ReadHalf(block);
  std::memcpy(weights.q, block + 2, kBlockInputs);
  return weights;
}

void WeightsOf(const Q4Weights& block, float* w) {
  const float scale = FromHalf(block.scale), minimum = FromHalf(block.minimum);
  for (int i = 0; i < kBlockInputs; ++i) w[i] = scale * static_cast<float>(block.q[i]) + minimum;
}

void WeightsOf(const Q8Weights& block, float* w) {
  const float scale = FromHalf(block.scale);
  for (int i = 0; i < kBlockInputs; ++i) w[i] = scale * static_cast<float>(block.q[i]);
}

// Tries ranges a little narrower than that of the weights and keeps the one with the least
// squared error: the outermost weights cost less than a coarser grid for all.
Q4Weights QuantizeQ4(const float* weights) {
  const auto [least, most] = std::minmax_element(weights, weights + kBlockInputs);
  Q4Weights best{};
  float best_error = -1;
  for (int shrink = 0; shrink < 8; ++shrink) {
    const float keep = 1 - 0.03f * static_cast<float>(shrink);
    const float middle = (*least + *most) / 2, half_range = (*most - *least) / 2 * keep;
    Q4Weights block;
    block.scale = ToHalf(2 * half_range / 15);
    block.minimum = ToHalf(middle - half_range);
    const float error = RoundToQ4(weights, &block);
    if (best_error < 0 || error < best_error) {
      best = block;
      best_error = error;
    }
  }
  return best;
}

ByteSteps::ByteSteps(const float* weights, int64_t count) {
  const float largest = Largest(weights, count);
  scale = largest / 127;
  inverse_ = largest > 1e-30f ? 1 / scale : 0;
}

void ByteSteps::Round(const float* weights, int64_t count, int8_t* q) const {
  for (int64_t i = 0; i < count; ++i) {
    const float steps = std::nearbyint(weights[i] * inverse_);
    q[i] = static_cast<int8_t>(std::min(std::max(steps, -127.0f), 127.0f));
  }
}

void WriteBlock(const Q4Weights& weights, int64_t output, uint8_t* panel, int64_t block) {
  uint8_t* begin = panel + block * BlockBytes(PanelFormat::kQ4);
  WriteHalf(weights.scale, begin + 2 * output);
  WriteHalf(weights.minimum, begin + 2 * (kPanelOutputs + output));
  for (int j = 0; j < 4; ++j) {
    uint8_t* word = begin + (j + 1) * kWordRowBytes + 4 * output;
    for (int i = 0; i < 4; ++i) {
      word[i] = static_cast<uint8_t>(weights.q[8 * j + i] | weights.q[8 * j + 4 + i] << 4);
    }
  }
}

void WriteBlock(const Q8Weights& weights, int64_t output, uint8_t* panel, int64_t block,
                int64_t blocks) {
  constexpr int64_t kBytes = BlockBytes(PanelFormat::kQ8);
  WriteHalf(weights.scale, panel + blocks * kBytes + 2 * (block * kPanelOutputs + output));
  WriteBytes(weights.q, panel + block * kBytes + 4 * output);
}

void WriteInt8(const float* weights, int64_t blocks, int64_t output, uint8_t* panel) {
  constexpr int64_t kBytes = BlockBytes(PanelFormat::kInt8);
  const ByteSteps steps(weights, blocks * kBlockInputs);
  std::memcpy(panel + blocks * kBytes + 4 * output, &steps.scale, sizeof(steps.scale));
  for (int64_t block = 0; block < blocks; ++block) {
    int8_t q[kBlockInputs];
    steps.Round(weights + block * kBlockInputs, kBlockInputs, q);
    WriteBytes(q, panel + block * kBytes + 4 * output);
  }
}

void ReadRow(PanelFormat format, const uint8_t* panels, int64_t in, int64_t row, float* out) {
  const int64_t blocks = BlocksOf(in), lane = row % kPanelOutputs;
  const uint8_t* panel = panels + row / kPanelOutputs * PanelBytes(format, blocks);
  const uint8_t* scales = panel + blocks * BlockBytes(format);
  for (int64_t block = 0; block < blocks; ++block) {
    const uint8_t* begin = panel + block * BlockBytes(format);
    const uint8_t* words = begin + 4 * lane;
    const int64_t first = block * kBlockInputs, count = std::min(kBlockInputs, in - first);
    float* w = out + first;
    switch (format) {
      case PanelFormat::kFloat32:
        for (int64_t k = 0; k < count; ++k) w[k] = ReadFloat(words + k * kWordRowBytes);
        break;
      case PanelFormat::kBFloat16:
        for (int64_t k = 0; k < count; ++k) {
          w[k] = ReadBFloat16(words + k / 2 * kWordRowBytes + k % 2 * 2);
        }
        break;
      case PanelFormat::kQ4: ReadQ4Lane(begin, lane, count, w); break;
      case PanelFormat::kQ8:
      case PanelFormat::kInt8: {
        const float scale = format == PanelFormat::kInt8
                                ? ReadFloat(scales + 4 * lane)
                                : FromHalf(ReadHalf(scales + 2 * (kPanelOutputs * block + lane)));
        for (int64_t k = 0; k < count; ++k) {
          const int64_t byte = k / 4 * kWordRowBytes + k % 4;
          w[k] = scale * static_cast<float>(words[byte] - 128);
        }
        break;
      }
    }
  }
}

}  // namespace lmfusion
