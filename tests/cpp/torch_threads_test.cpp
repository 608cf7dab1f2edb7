#include "ops/torch_threads.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <thread>

namespace lmfusion {
namespace {

TEST(TorchThreads, LoopsUseAsManyAsTorch) {
  for (const int count : {1, 3, 4}) {
    at::set_num_threads(count);
    EXPECT_EQ(ThreadCount(), count);
  }
}

TEST(TorchThreads, TorchKeepsToOneThreadWhileLoopsUseAll) {
  at::set_num_threads(4);
  {
    const OnlyOurThreads outer;
    EXPECT_EQ(at::get_num_threads(), 1);
    EXPECT_EQ(ThreadCount(), 4);
    {
      const OnlyOurThreads inner;
      EXPECT_EQ(at::get_num_threads(), 1);
      EXPECT_EQ(ThreadCount(), 4);
    }
    EXPECT_EQ(at::get_num_threads(), 1);
    EXPECT_EQ(ThreadCount(), 4);
    std::thread([] { EXPECT_EQ(at::get_num_threads(), 4); }).join();  // others keep theirs
  }
  EXPECT_EQ(at::get_num_threads(), 4);
  const OnlyOurThreads none(false);
  EXPECT_EQ(at::get_num_threads(), 4);
  EXPECT_EQ(ThreadCount(), 4);
}

}  // namespace
}  // namespace lmfusion
