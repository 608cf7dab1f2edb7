#include "kernels/linear/narrow_blocks.h"

#include <cstring>

#include "kernels/linear/weight_blocks.h"
#include "kernels/threads/parallel.h"

namespace lmfusion {
namespace {

// Calls use(block, number) for the blocks of a file, on many threads.
template <typename Use>
void ForBlocks(const uint8_t* blocks, WeightType type, int64_t count, Use use) {
  const int64_t size = BlockBytes(type);
  ParallelFor(0, count, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint8_t* block = blocks + i * size;
      if (type == WeightType::kQ8_0) {
        use(ReadQ8_0(block), i);
      } else {
        use(type == WeightType::kQ4_0 ? ReadQ4_0(block) : ReadQ4_1(block), i);
      }
    }
  });
}

void Write(const NarrowBlocks& to, const Q4Weights& block, int64_t number) {
  uint8_t* pairs = to.values + number * (kBlockInputs / 2);
  for (int64_t i = 0; i < kBlockInputs; i += 2) {
    pairs[i / 2] = static_cast<uint8_t>(block.q[i] | block.q[i + 1] << 4);
  }
  to.scales[2 * number] = block.scale;
  to.scales[2 * number + 1] = block.minimum;
}

void Write(const NarrowBlocks& to, const Q8Weights& block, int64_t number) {
  std::memcpy(to.values + number * kBlockInputs, block.q, kBlockInputs);
  to.scales[number] = block.scale;
}

}  // namespace

void WidenBlocks(const uint8_t* blocks, WeightType type, int64_t count, float* out) {
  ForBlocks(blocks, type, count, [out](const auto& block, int64_t number) {
    WeightsOf(block, out + number * kBlockInputs);
  });
}

void RepackBlocks(const uint8_t* blocks, WeightType type, int64_t count, int64_t first,
                  const NarrowBlocks& out) {
  ForBlocks(blocks, type, count,
            [&](const auto& block, int64_t number) { Write(out, block, first + number); });
}

void QuantizeBlocks(const float* weights, int64_t count, int64_t first, const NarrowBlocks& out) {
  ParallelFor(0, count, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* block = weights + i * kBlockInputs;
      if (out.four_bits) {
        Write(out, QuantizeQ4(block), first + i);
      } else {
        Write(out, QuantizeQ8(block), first + i);
      }
    }
  });
}

}  // namespace lmfusion
