#pragma once

#include <string>

namespace lmfusion {

// Note [Packed matrices]
// A small batch takes as long as its weights take to read, a larger one as long as its products;
// both depend on how a weight is held. It is held in as few bytes as lose nothing:
//   float32 weights that are all representable in bfloat16 are held as bfloat16, and widened to
//   float32 in registers: half the bytes, the same answer;
//   blocks of GGUF files stay blocks (Q4_0 and Q4_1 as "q4", Q8_0 as "q8"), and a weight of
//   float32 comes into being in registers, d * q + m, rounded once, as the gguf package has it.
// What is lost otherwise is what `compute` says: kBFloat16 rounds all weights and
// activations to bfloat16. kInt8 turns weights into 8 bits with one scale an output. kInt4 does
// that with blocks of 8 bits, and turns floats into blocks of 4, which have a float16 scale and
// minimum for 32.
// Both multiply them with activations of 8 bits, which have a scale for each 32 of a row (one
// scale for a row loses the small ones beside an outlier, and language models have outliers).
// Outputs have no such outliers, and a scale for each block would cost kInt8 two operations after
// every eight.

// What a product is computed in: what its weights are, on the CPU and on devices alike, and what it
// rounds its activations to. All sums are float32.
enum class Compute {
  kFloat32,   // exact: float32 products with the weights as they were given
  kBFloat16,  // weights and activations rounded to bfloat16
  kFloat16,   // weights and activations rounded to float16; on a device only
  kInt8,  // 8-bit weights, a scale for each output; 8-bit activations, a scale for every 32 (on a
          // device bfloat16)
  kInt4,  // 4-bit weights, a scale and a minimum for every 32, but blocks of 8 bits as kInt8
          // has them; activations as for kInt8
};
// "float32", "bfloat16", "float16", "int8", "int4"; std::invalid_argument
Compute ComputeByName(const std::string& name);
const char* Name(Compute compute);

}  // namespace lmfusion
