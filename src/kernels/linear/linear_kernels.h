#pragma once

#include <cstdint>

#include "kernels/linear/panel_format.h"

namespace lmfusion {

// The most tokens a kernel takes at once, whatever the instruction set.
constexpr int kMostTokens = 24;

// A product of some panels with the packed activations of a few tokens.
struct PanelProduct {
  const uint8_t* panels;  // the first panel
  int64_t panel_bytes;
  int64_t blocks;     // of 32 inputs
  const float* bias;  // of the first panel's outputs; null: none
  const uint32_t* activations;
  float* y;  // [tokens][y_stride], of the first panel's first output
  int64_t y_stride;
  int64_t outputs;  // all of these panels, the last of which need not be full
};
using PanelKernel = void (*)(const PanelProduct& product);

// Note [Activations]
// Kernels read the activations of a few tokens (n) as words [.][n], to be broadcast one by one:
//   float32   [blocks * 32][n] floats
//   bfloat16  [blocks * 16][n]: inputs 2j (low half) and 2j + 1 (high half)
//   int8      a block: 8 rows of words (byte i of word j: input 4j + i), then the scale, and the
//             scale times the sum of the bytes (floats).
//             input = scale * byte; a block that holds anything not finite has the scale NaN
constexpr int64_t kInt8BlockWords = 10;
struct Activations {
  const float* x;  // [tokens][in]
  int64_t in;
  int tokens;
  uint32_t* packed;
};

// Log sum exp of logits in two parts: log(sum) + largest.
struct PartialSum {
  float largest, sum;
};

// What logits are made of: softcap * tanh(scale * product / softcap); 0: no cap.
struct LogitRule {
  float scale, softcap;
};

struct LinearKernels {
  int max_tokens;                                       // a kernel exists for 1..max_tokens tokens
  int max_int8_tokens;                                  // as many of int8
  PanelKernel float32[kPanelFormats][kMostTokens + 1];  // all but kInt8; exact
  PanelKernel bfloat16[kMostTokens + 1];                // panels kBFloat16; null: no such unit
  PanelKernel int8[kPanelFormats][kMostTokens + 1];     // panels kQ4 and kInt8; may be null

  void (*pack_float32)(const Activations& activations);
  void (*pack_bfloat16)(const Activations& activations);
  void (*pack_int8)(const Activations& activations);

  // One panel as panels kFloat32 or kBFloat16 (rounded) hold it.
  void (*widen)(PanelFormat format, const uint8_t* panel, int64_t blocks, float* out);
  void (*narrow)(PanelFormat format, const uint8_t* panel, int64_t blocks, uint32_t* out);

  // Applies the rule to products [n] in place and sums; `members` (null: none) says which [n]
  // belong to the second sum.
  void (*sum_exp)(float* products, int64_t n, const LogitRule& rule, const uint8_t* members,
                  PartialSum* all, PartialSum* of_members);
};

// Those of CurrentInstructionSet().
const LinearKernels& CurrentLinearKernels();

const LinearKernels& PortableLinearKernels();
#if defined(__x86_64__) && defined(__GNUC__)
const LinearKernels& Avx2LinearKernels();
const LinearKernels& Avx512LinearKernels();
void AddBFloat16Kernels(LinearKernels* kernels);  // those of AVX-512 BF16
#endif

}  // namespace lmfusion
