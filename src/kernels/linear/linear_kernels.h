#pragma once

#include <cstdint>

#include "kernels/linear/panel_format.h"
#include "kernels/simd/instruction_set.h"

namespace lmfusion {

// The most tokens a kernel takes at once, whatever the instruction set.
constexpr int kMostTokens = 24;

// Panels that a float kernel works on at once: with few tokens, the sums of one panel would wait
// for each other. Several sums for each output would do as well, but see Note [Same bits].
constexpr int64_t PanelsAtOnce(int64_t tokens) { return tokens == 1 ? 4 : tokens <= 3 ? 2 : 1; }

// Inputs (in blocks) whose products go into one sum; the sums of such stretches are added. A sum
// over all inputs would lose a digit in wide layers.
constexpr int64_t kSumBlocks = 4;
constexpr int64_t kSumInputs = kSumBlocks * kBlockInputs;

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

// Blocks of a stretch that comes next, to be widened into the place of those that have been read.
struct Refill {
  uint8_t* into = nullptr;  // StretchProduct::panels
  const uint8_t* panels = nullptr;
  int64_t panel_bytes = 0;
  int64_t blocks_of_panel = 0;
  int64_t begin = 0, blocks = 0;
};

// A stretch of inputs of some panels, as floats or bytes, with the same of a few tokens.
struct StretchProduct {
  const uint8_t* panels;  // floats: [inputs][16] of the first panel; bytes: see ByteStretches
  int64_t panel_bytes;    // from one panel's to the next one's
  int64_t blocks;         // of 32 inputs
  const uint32_t* activations;
  float* totals;  // [tokens][panels][16]; the sums are added to them
  // Weights that are needed next: one byte a row of `panels`, `step` apart, of as many panels.
  const uint8_t* ahead;
  int64_t ahead_step, ahead_panel_bytes;
  Refill refill;  // of LinearKernels::refills
};
using StretchKernel = void (*)(const StretchProduct& product);
constexpr int kMostPanelsOfTokens = 2;
constexpr int64_t kMostStretchBlockBytes = kBlockInputs * kWordRowBytes;  // as the kernels read it

// Totals of all stretches, which become outputs.
struct StretchTotals {
  const float* totals;  // [rows][panels][16]
  int64_t rows, panels;
  const uint8_t* scales;  // of panels kInt8, floats [16] of the one panel; null: none
  const float* bias;      // of whole panels; null: none
  float* y;               // [rows][y_stride], of the first panel's first output
  int64_t y_stride;
  int64_t outputs;  // from there on; there may be fewer than in these panels, or more
};

// Note [Activations]
// Kernels read the activations of a few tokens (n) as words to be broadcast one by one, floats
// [.][n]:
//   float32   [blocks * 32][n] floats
//   bfloat16  [blocks * 16][n]: inputs 2j (low half) and 2j + 1 (high half)
// and bytes [blocks][n][words of a block]:
//   int8      8 words (byte i of word j: input 4j + i), then the scale, and the scale times the sum
//             of the bytes (floats).
//             input = scale * byte; a block that holds anything not finite has the scale NaN.
//             After all blocks [n] floats: the sum of what they have last
//   pairs     where bytes are multiplied as numbers of 16 bits (ByteStretches): 16 words, inputs
//             4j (low half) and 4j + 2 (high half) in the first eight, 4j + 1 and 4j + 3 in the
//             others, then as int8
constexpr int64_t kInt8BlockWords = 10, kPairBlockWords = 18;
constexpr int64_t Int8Words(int64_t blocks) { return blocks * kInt8BlockWords + 1; }  // of a token
struct Activations {
  const float* x;  // [tokens][stride]: the inputs of blocks [begin, end)
  int64_t stride;
  int64_t in;  // of a token, those of other blocks included
  int64_t begin, end;
  int tokens;
  uint32_t* packed;  // of all blocks
};
struct ActivationPacker {
  void (*pack)(const Activations& activations);  // blocks that others write beside it are let be
  // Writes what stands behind all blocks, when they are packed; null: nothing does.
  void (*finish)(uint32_t* packed, int64_t blocks, int tokens);
};

// Note [Same bits]
// On one kind of CPU, a token's numbers have the same bits whatever else is in its batch, however
// many threads there are, and whether its ancestors were computed with it or before it:
//   - a product adds up an output's inputs in their order, in stretches that the weight alone gives
//     (kSumBlocks), so tiles of any number of tokens, panels side by side and one stretch after
//     another agree;
//   - which kernel runs depends on the weight, not on the number of rows;
//   - attention weighs and adds keys in the order of their positions, in stretches that begin at
//     fixed positions (kKeyStretch), wherever the tree's segments begin;
//   - all else is computed row by row.

// Products of bytes where many tokens share a stretch of weights, which is unpacked once for all of
// them, on sets whose instructions for bytes are few. They are those of LinearKernels::int8 to the
// bit: what is added up in another order are whole numbers.
struct ByteStretches {
  int least_tokens;                        // with fewer, LinearKernels::int8 is faster
  StretchKernel kernels[kMostTokens + 1];  // [tokens], of one panel; null: there are none
  // Blocks [begin, end) of one panel as the kernels read them.
  void (*unpack)(const uint8_t* panel, int64_t blocks, int64_t begin, int64_t end, uint8_t* out);
  int64_t block_rows;  // rows of sixteen words that a block is then
  ActivationPacker activations;
  int64_t block_words;  // that a block of a token's activations is then
};

struct LinearKernels {
  int max_tokens;                                       // a kernel exists for 1..max_tokens tokens
  int max_int8_tokens;                                  // as many of int8
  int panels_of_tokens;                                 // that a kernel of stretches takes at most
  PanelKernel float32[kPanelFormats][kMostTokens + 1];  // all but kInt8; exact
  PanelKernel int8[kPanelFormats][kMostTokens + 1];     // panels kQ4 and kInt8; may be null
  // The same as float32, to the bit, where many tokens share a stretch of weights:
  // [panels][tokens].
  StretchKernel stretches[kMostPanelsOfTokens + 1][kMostTokens + 1];
  // As stretches[panels_of_tokens], and widens the next stretch; null: there are none.
  StretchKernel refills[kPanelFormats][kMostTokens + 1];

  ByteStretches q4_stretches, int8_stretches;

  void (*write_totals)(const StretchTotals& totals);
  ActivationPacker float32_activations, int8_activations;

  // Blocks [begin, end) of one panel of `blocks` as panels kFloat32 hold them.
  void (*widen)(PanelFormat format, const uint8_t* panel, int64_t blocks, int64_t begin,
                int64_t end, float* out);
};
LMFUSION_KERNELS(LinearKernels)

// Products of bfloat16 with sums of float32 by instructions made for them.
struct BFloat16Kernels {
  PanelKernel products[kMostTokens + 1];  // panels kBFloat16
  ActivationPacker activations;
};
#if defined(__x86_64__) && defined(__GNUC__)
namespace avx512_bf16 {
extern const BFloat16Kernels kBFloat16Kernels;
}
#endif
// Null where CurrentInstructionSet() has no such instructions.
inline const BFloat16Kernels* CurrentBFloat16Kernels() {
#if defined(__x86_64__) && defined(__GNUC__)
  const InstructionSet set = CurrentInstructionSet();
  if (set == InstructionSet::kAvx512BFloat16 || set == InstructionSet::kAmx) {
    return &avx512_bf16::kBFloat16Kernels;
  }
#endif
  return nullptr;
}

}  // namespace lmfusion
