#include "kernels/linear/narrow_blocks.h"

#include "kernels/linear/weight_blocks.h"
#include "kernels/threads/parallel.h"

namespace lmfusion {
namespace {

// Calls use(block, number) for the blocks of a file, on many threads.
template <typename Read, typename Use>
void ForBlocks(const uint8_t* blocks, WeightType type, int64_t count, Read read, Use use) {
  const int64_t size = BlockBytes(type);
  ParallelFor(0, count, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) use(read(blocks + i * size), i);
  });
}

// Calls use(block, number) with what the type's blocks are.
template <typename Use>
void ForQ4(const uint8_t* blocks, WeightType type, int64_t count, Use use) {
  ForBlocks(blocks, type, count, type == WeightType::kQ4_0 ? &ReadQ4_0 : &ReadQ4_1, use);
}

void Write(const NarrowBlocks& to, const Q4Weights& block, int64_t number) {
  uint8_t* pairs = to.values + number * (kBlockInputs / 2);
  for (int64_t i = 0; i < kBlockInputs; i += 2) {
    pairs[i / 2] = static_cast<uint8_t>(block.q[i] | block.q[i + 1] << 4);
  }
  to.scales[2 * number] = block.scale;
  to.scales[2 * number + 1] = block.minimum;
}

}  // namespace

void WidenBlocks(const uint8_t* blocks, WeightType type, int64_t count, float* out) {
  const auto widen = [out](const auto& block, int64_t number) {
    WeightsOf(block, out + number * kBlockInputs);
  };
  if (type == WeightType::kQ8_0) {
    ForBlocks(blocks, type, count, &ReadQ8_0, widen);
  } else {
    ForQ4(blocks, type, count, widen);
  }
}

void RepackBlocks(const uint8_t* blocks, WeightType type, int64_t count, const NarrowBlocks& out) {
  ForQ4(blocks, type, count,
        [&out](const Q4Weights& block, int64_t number) { Write(out, block, number); });
}

void QuantizeBlocks(const float* weights, int64_t count, int64_t first, const NarrowBlocks& out) {
  ParallelFor(0, count, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Write(out, QuantizeQ4(weights + i * kBlockInputs), first + i);
    }
  });
}

void QuantizeRows(const float* weights, int64_t rows, int64_t columns, int8_t* values,
                  float* scales) {
  ParallelFor(0, rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* from = weights + row * columns;
      const ByteSteps steps(from, columns);
      steps.Round(from, columns, values + row * columns);
      scales[row] = steps.scale;
    }
  });
}

}  // namespace lmfusion
