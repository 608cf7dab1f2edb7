// Tensors whose memory is scratch: counted, given back, and used again.
#include "ops/pooled_floats.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <thread>

#include "kernels/threads/scratch.h"

namespace lmfusion {
namespace {

TEST(PooledFloats, AreTensorsLikeOthers) {
  at::Tensor floats = EmptyFloats({30, 7});
  EXPECT_EQ(floats.sizes(), at::IntArrayRef({30, 7}));
  EXPECT_EQ(floats.scalar_type(), at::kFloat);
  EXPECT_TRUE(floats.is_contiguous() && floats.device().is_cpu());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(floats.data_ptr()) % 64, 0u);
  floats.fill_(2);
  EXPECT_EQ(floats.clone().sum().item<float>(), 420);
  EXPECT_EQ(EmptyFloats({0, 7}).numel(), 0);
}

TEST(PooledFloats, AreScratchUntilTheLastViewOfThemEnds) {
  constexpr int64_t kRows = 1 << 16, kBytes = kRows * 7 * static_cast<int64_t>(sizeof(float));
  const int64_t before = ScratchBytes();
  at::Tensor view;
  const void* memory = nullptr;
  {
    const at::Tensor floats = EmptyFloats({kRows, 7});
    memory = floats.data_ptr();
    view = floats[29];
  }
  EXPECT_EQ(ScratchBytes(), before + kBytes);
  const at::Tensor other = EmptyFloats({kRows, 7});
  EXPECT_NE(other.data_ptr(), memory);  // which is in use
  std::thread([&view] { view = at::Tensor(); }).join();
  EXPECT_EQ(EmptyFloats({kRows, 7}).data_ptr(), memory);
  EXPECT_EQ(ScratchBytes(), before + 2 * kBytes);
}

}  // namespace
}  // namespace lmfusion
