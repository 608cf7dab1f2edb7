#include "kernels/threads/scratch.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace lmfusion {
namespace {

constexpr int64_t kMegabyte = int64_t{1} << 20;

TEST(ScratchTest, ThreadsThatComeOneAfterAnotherShareOneBuffer) {
  const int64_t before = ScratchBytes();
  for (int i = 0; i < 64; ++i) {
    std::thread([] {
      const Scratch scratch(kMegabyte);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(scratch.As<void>()) % 64, 0);
      std::memset(scratch.As<void>(), 1, kMegabyte);
    }).join();
  }
  EXPECT_LE(ScratchBytes() - before, kMegabyte);
}

TEST(ScratchTest, BorrowersAtOnceHaveMemoryOfTheirOwn) {
  std::vector<std::unique_ptr<Scratch>> borrowed;
  for (int i = 0; i < 40; ++i) {
    borrowed.push_back(std::make_unique<Scratch>(1000 + i));
    std::memset(borrowed.back()->As<void>(), i, 1000 + i);
  }
  for (int i = 0; i < 40; ++i) {
    const auto* bytes = borrowed[i]->As<uint8_t>();
    for (int k = 0; k < 1000 + i; ++k) ASSERT_EQ(bytes[k], i);
  }
}

TEST(ScratchTest, IdleBuffersAreBounded) {
  {
    std::vector<std::unique_ptr<Scratch>> borrowed;
    for (int i = 0; i < 10; ++i) borrowed.push_back(std::make_unique<Scratch>(20 * kMegabyte));
    EXPECT_GE(ScratchBytes(), 200 * kMegabyte);
  }
  EXPECT_LE(ScratchBytes(), kIdleScratchBytes);
  { const Scratch large(kIdleScratchBytes + kMegabyte); }
  EXPECT_LE(ScratchBytes(), kIdleScratchBytes);
}

}  // namespace
}  // namespace lmfusion
