#include "kernels/linear/weight_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
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

// Whether all bytes are `value`.
bool IsFilled(const uint8_t* memory, int64_t bytes, int value) {
  return std::all_of(memory, memory + bytes, [value](uint8_t byte) { return byte == value; });
}

struct Held {
  std::shared_ptr<uint8_t> memory;
  int64_t bytes;
  int value;
};

TEST(WeightMemory, NobodyWritesWhatAnotherHolds) {
  std::vector<std::vector<Held>> held(4);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 60; ++i) {
        const int64_t bytes = i == 30 ? 40 * kMegabyte : 1 + i * 30011;
        const std::shared_ptr<uint8_t> memory = WeightMemory(bytes);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.get()) % 64, 0);
        EXPECT_TRUE(IsFilled(memory.get(), bytes, 0));
        held[thread].push_back({memory, bytes, 1 + (60 * thread + i) % 255});
        std::memset(memory.get(), held[thread].back().value, bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& of_thread : held) {
    for (const Held& h : of_thread) EXPECT_TRUE(IsFilled(h.memory.get(), h.bytes, h.value));
  }
}

TEST(WeightMemory, GoesBackWithItsLastUser) {
  const int64_t before = Resident();
  std::vector<std::shared_ptr<uint8_t>> held;
  for (int i = 0; i < 100; ++i) {
    held.push_back(WeightMemory(3 * kMegabyte));
    std::memset(held.back().get(), 1, 3 * kMegabyte);
  }
  EXPECT_GT(Resident() - before, 290 * kMegabyte);
  const std::shared_ptr<uint8_t> last = held.back();
  held.clear();
  EXPECT_LT(Resident() - before, 50 * kMegabyte);  // the mapping of the last one
  EXPECT_TRUE(IsFilled(last.get(), 3 * kMegabyte, 1));
}

}  // namespace
}  // namespace lmfusion
