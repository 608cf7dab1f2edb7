#include "kernels/linear/weight_memory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <fstream>
#include <thread>
#include <vector>

namespace lmfusion {
namespace {

constexpr int64_t kMegabyte = int64_t{1} << 20;

// Bytes of this process that are in memory.
int64_t Resident() {
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * 4096;
}

TEST(WeightMemory, NobodyWritesWhatAnotherHolds) {
  std::vector<std::vector<at::Tensor>> held(4);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int64_t i = 0; i < 60; ++i) {
        const int64_t bytes = i == 30 ? 40 * kMegabyte : 1 + i * 30011;
        at::Tensor memory = WeightMemory(bytes);
        EXPECT_EQ(memory.numel(), bytes);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data_ptr()) % 64, 0);
        EXPECT_FALSE(memory.any().item<bool>()) << "of zeros";
        held[thread].push_back(memory.fill_(1 + (60 * thread + i) % 255));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int thread = 0; thread < 4; ++thread) {
    for (int64_t i = 0; i < 60; ++i) {
      EXPECT_TRUE(held[thread][i].eq(1 + (60 * thread + i) % 255).all().item<bool>());
    }
  }
}

TEST(WeightMemory, GoesBackWithItsLastTensor) {
  const int64_t before = Resident();
  std::vector<at::Tensor> held;
  for (int i = 0; i < 100; ++i) held.push_back(WeightMemory(3 * kMegabyte).fill_(1));
  EXPECT_GT(Resident() - before, 290 * kMegabyte);
  const at::Tensor last = held.back();
  held.clear();
  EXPECT_LT(Resident() - before, 50 * kMegabyte);  // the piece of the last one
  EXPECT_TRUE(last.eq(1).all().item<bool>());
}

}  // namespace
}  // namespace lmfusion
