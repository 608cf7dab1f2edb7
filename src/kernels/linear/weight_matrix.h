#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace lmfusion {

// How the rows of a weight are written.
enum class WeightType {
  kFloat,  // float32 or bfloat16 [out, in]
  kQ4_0,   // GGUF blocks of 32 weights, uint8 [out, in / 32 * 18]
  kQ4_1,   // uint8 [out, in / 32 * 20]
  kQ8_0,   // uint8 [out, in / 32 * 34]
};
WeightType WeightTypeByName(const std::string& name);  // "float", "q4_0", "q4_1", "q8_0";
                                                       // std::invalid_argument
const char* Name(WeightType type);
int64_t BlockBytes(WeightType type);  // of 32 weights of one row; 0 for floats

// Copies `bytes` bytes of a weight to `to` that belong at `from` in memory. Called from many
// threads.
using WeightReader = std::function<void(const void* from, int64_t bytes, void* to)>;

// A matrix of weights [out, in], where it lies.
struct WeightMatrix {
  const void* data = nullptr;
  int64_t out = 0, in = 0;  // weights, whatever their type
  int64_t row_stride = 0;   // bytes from row to row
  int64_t stride = 0;       // bytes from weight to weight; from block to block of blocks
  WeightType type = WeightType::kFloat;
  bool bfloat16 = false;  // floats: bfloat16 rather than float32
  // Where there is one, nothing is at `data`: rows, which lie one behind the other, are read as
  // they are packed.
  WeightReader read;
};

}  // namespace lmfusion
