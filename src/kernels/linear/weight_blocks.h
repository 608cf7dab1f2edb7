#pragma once

#include <cstdint>

#include "kernels/linear/panel_format.h"

namespace lmfusion {

// Thirty-two weights of one output, as blocks of GGUF files hold them.
struct Q4Weights {
  uint16_t scale, minimum;  // float16; weight = scale * q + minimum
  uint8_t q[kBlockInputs];  // 0..15
};
struct Q8Weights {
  uint16_t scale;  // float16; weight = scale * q
  int8_t q[kBlockInputs];
};

Q4Weights ReadQ4_0(const uint8_t* block);
Q4Weights ReadQ4_1(const uint8_t* block);
Q8Weights ReadQ8_0(const uint8_t* block);

// The weights that a block stands for, each rounded once: w [kBlockInputs].
void WeightsOf(const Q4Weights& block, float* w);
void WeightsOf(const Q8Weights& block, float* w);

// The nearest block of this kind to `weights` [kBlockInputs], which must be finite.
Q4Weights QuantizeQ4(const float* weights);

// Into lane `output` (0..15) of a block of a panel.
void WriteBlock(const Q4Weights& weights, int64_t output, uint8_t* panel, int64_t block);
void WriteBlock(const Q8Weights& weights, int64_t output, uint8_t* panel, int64_t block,
                int64_t blocks);

// 127 steps from zero to the largest of the weights [count] of one output, which must be finite.
struct ByteSteps {
  ByteSteps(const float* weights, int64_t count);
  // The nearest steps to `weights` [count]: q [count].
  void Round(const float* weights, int64_t count, int8_t* q) const;

  float scale;  // weight = scale * q

 private:
  float inverse_;
};

// The weights [blocks * kBlockInputs] of one output in such steps, into lane `output` of a panel
// kInt8.
void WriteInt8(const float* weights, int64_t blocks, int64_t output, uint8_t* panel);

// Row `row` of packed panels of any format: out [in].
void ReadRow(PanelFormat format, const uint8_t* panels, int64_t in, int64_t row, float* out);

}  // namespace lmfusion
