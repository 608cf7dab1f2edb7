#include "kernels/threads/parallel.h"

#include <gtest/gtest.h>
#if defined(__linux__)
#include <sched.h>
#endif
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/threads/core.h"

namespace lmfusion {
namespace {

class Parallel : public testing::Test {
 protected:
  void SetUp() override {
    SetThreadCountProvider([] { return 4; });
  }
  void TearDown() override { SetThreadCountProvider(nullptr); }
};

// How often each item of [begin, end) was worked on.
std::vector<int> Counts(int64_t begin, int64_t end, int64_t grain) {
  std::vector<std::atomic<int>> counts(std::max<int64_t>(end, 0));
  ParallelFor(begin, end, grain, [&](int64_t b, int64_t e) {
    EXPECT_LT(b, e);
    EXPECT_LE(e - b, std::max<int64_t>(grain, 1));
    for (int64_t i = b; i < e; ++i) ++counts[i];
  });
  return {counts.begin(), counts.end()};
}

TEST_F(Parallel, DoesEveryItemOnce) {
  for (int64_t end : {1, 2, 3, 7, 64, 1000}) {
    for (int64_t grain : {0, 1, 3, 64, 5000}) {
      EXPECT_EQ(Counts(0, end, grain), std::vector<int>(end, 1)) << end << " by " << grain;
    }
  }
  EXPECT_EQ(Counts(2, 5, 1), (std::vector<int>{0, 0, 1, 1, 1}));
  ParallelFor(3, 3, 1, [](int64_t, int64_t) { FAIL(); });
  ParallelFor(3, -3, 1, [](int64_t, int64_t) { FAIL(); });
}

// How many threads took part in a loop. The first chunks wait for each other for a while.
size_t Threads(size_t allowed) {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  std::atomic<size_t> waiting{0};
  ParallelFor(0, 16, 1, [&](int64_t, int64_t) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      threads.insert(std::this_thread::get_id());
    }
    ++waiting;
    for (int i = 0; i < 200 && waiting < allowed; ++i) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  });
  return threads.size();
}

TEST_F(Parallel, UsesAllThreadsAllowedAndNoMore) {
  for (size_t allowed : {1, 2, 3}) {
    const LoopThreads threads(static_cast<int>(allowed));
    size_t most = 0;
    // On a crowded machine a loop may stay on its caller's thread; not for ever.
    for (int n = 0; n < 1000 && most < allowed; ++n) most = std::max(most, Threads(allowed));
    EXPECT_EQ(most, allowed);
    for (int n = 0; n < 5; ++n) EXPECT_LE(Threads(allowed), allowed);
  }
}

TEST_F(Parallel, NumberOfThreadsIsTheCallersOrTheProviders) {
  {
    const LoopThreads outer(2);
    EXPECT_EQ(ThreadCount(), 2);
    {
      const LoopThreads inner(1);
      EXPECT_EQ(ThreadCount(), 1);
    }
    EXPECT_EQ(ThreadCount(), 2);
    std::thread([] { EXPECT_EQ(ThreadCount(), 4); }).join();  // others have the provider's
  }
  EXPECT_EQ(ThreadCount(), 4);
  SetThreadCountProvider(nullptr);
  EXPECT_EQ(ThreadCount(), std::max(1u, std::thread::hardware_concurrency()));
}

TEST_F(Parallel, RunsALoopInALoopOnItsOwnThread) {
  std::atomic<int> items{0}, strangers{0};
  const uint64_t shared = SharedLoops();
  ParallelFor(0, 8, 1, [&](int64_t, int64_t) {
    const std::thread::id self = std::this_thread::get_id();
    ParallelFor(0, 8, 1, [&](int64_t, int64_t) {
      ++items;
      if (std::this_thread::get_id() != self) ++strangers;
    });
  });
  EXPECT_EQ(items, 64);
  EXPECT_EQ(strangers, 0);
  ParallelFor(0, 8, 8, [](int64_t, int64_t) {});  // one chunk
  EXPECT_EQ(SharedLoops() - shared, 1u);          // the outer one
}

TEST_F(Parallel, PassesOnAnException) {
  for (int n = 0; n < 20; ++n) {
    EXPECT_THROW(ParallelFor(0, 100, 1,
                             [](int64_t b, int64_t) {
                               if (b % 10 == 3) throw std::runtime_error("chunk");
                             }),
                 std::runtime_error);
    EXPECT_EQ(Counts(0, 100, 1), std::vector<int>(100, 1));
  }
}

// Waits for a while until it is true.
template <class Condition>
void AwaitForAWhile(Condition condition) {
  for (int i = 0; i < 200 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

TEST_F(Parallel, PassesOnOneOfTwoExceptionsAtOnce) {
  const LoopThreads threads(2);
  bool both = false;
  for (int n = 0; n < 1000 && !both; ++n) {  // a loop may stay on its caller's thread
    std::atomic<int> begun{0};
    int64_t passed_on = -1;
    try {
      ParallelFor(0, 2, 1, [&](int64_t b, int64_t) {
        ++begun;
        AwaitForAWhile([&] { return begun == 2; });
        throw b;
      });
    } catch (int64_t chunk) {
      passed_on = chunk;
    }
    EXPECT_TRUE(passed_on == 0 || passed_on == 1) << passed_on;
    both = begun == 2;
  }
  EXPECT_TRUE(both);
  EXPECT_EQ(Counts(0, 100, 1), std::vector<int>(100, 1));
}

// While a worker is held by one caller's loop, another caller's loops still get threads.
TEST_F(Parallel, AHeldWorkerDoesNotHoldUpOtherCallers) {
  const LoopThreads threads(2);
  const std::thread::id self = std::this_thread::get_id();
  size_t most = 0;
  for (int n = 0; n < 1000 && most == 0; ++n) {  // a loop may stay on its caller's thread
    std::atomic<bool> joined{false};
    ParallelFor(0, 2, 1, [&](int64_t, int64_t) {
      if (std::this_thread::get_id() == self) {
        AwaitForAWhile([&] { return joined.load(); });
        return;
      }
      joined = true;
      std::thread([&] {
        const LoopThreads others(3);  // the held worker may be the only one so far
        for (int m = 0; m < 1000 && most < 2; ++m) most = std::max(most, Threads(2));
      }).join();
    });
  }
  EXPECT_GE(most, 2u);
  EXPECT_LE(most, 3u);  // with workers of earlier tests
  EXPECT_EQ(Counts(0, 100, 1), std::vector<int>(100, 1));
}

TEST_F(Parallel, ServesManyCallersAtOnce) {
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([&] {
      const LoopThreads threads(3);
      for (int n = 0; n < 500; ++n) {
        std::atomic<int64_t> own{0};
        ParallelFor(0, 50, 3, [&](int64_t b, int64_t e) { own += e - b; });
        sum += own;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 8 * 500 * 50);
}

TEST_F(Parallel, WorksAfterItsThreadsWentToSleep) {
  for (int n = 0; n < 5; ++n) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(Counts(0, 100, 1), std::vector<int>(100, 1));
  }
}

#if defined(__linux__)
// From now on that thread (0: the calling one) runs on one core; returns those it had.
cpu_set_t PinTo(pid_t thread, int core) {
  cpu_set_t all, one;
  sched_getaffinity(thread, sizeof(all), &all);
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  sched_setaffinity(thread, sizeof(one), &one);
  return all;
}

TEST(Core, IsLeftForAnotherOneWhereThereIsOne) {
  std::thread([] {
    cpu_set_t before, after;
    sched_getaffinity(0, sizeof(before), &before);
    const int core = CurrentCore();
    bool elsewhere = false;
    for (int i = 0; i < 100 && !elsewhere; ++i) {  // the system may put it back
      EXPECT_EQ(LeaveCore(core), CPU_COUNT(&before) > 1);
      elsewhere = CurrentCore() != core;
    }
    EXPECT_EQ(elsewhere, CPU_COUNT(&before) > 1);
    sched_getaffinity(0, sizeof(after), &after);
    EXPECT_TRUE(CPU_EQUAL(&before, &after));
    const int last = CurrentCore();
    PinTo(0, last);
    EXPECT_FALSE(LeaveCore(last));
    EXPECT_FALSE(LeaveCore(-1));
    EXPECT_EQ(CurrentCore(), last);
  }).join();
}
#endif

#if !defined(__SANITIZE_THREAD__)
#if defined(__linux__)
// As a busy caller does, whose core is not given to others.
template <class Condition>
void SpinForAWhile(Condition condition, std::chrono::microseconds most) {
  const auto begin = std::chrono::steady_clock::now();
  while (!condition() && std::chrono::steady_clock::now() - begin < most) {
  }
}

// The core that a thread of this process is on, or was when it fell asleep.
int LastCore(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string field;
  std::getline(file, field, ')');  // the name, which may have spaces
  for (int i = 3; i <= 39; ++i) file >> field;
  return std::stoi(field);
}

// A worker works on its caller's core, and may then run on others: how often of eight times it
// leaves that core before it sleeps. For a process that has no worker yet.
int TimesTheWorkerLeft() {
  using std::chrono::milliseconds;
  const LoopThreads threads(2);
  const int core = CurrentCore();
  const auto caller = static_cast<pid_t>(gettid());
  const cpu_set_t all = PinTo(0, core);  // the worker begins there, too
  std::atomic<pid_t> worker{0};
  int left = 0;
  for (int tries = 0, times = 0; tries < 2000 && times < 8; ++tries) {
    std::atomic<int> begun{0}, worked{0};
    ParallelFor(0, 2, 1, [&](int64_t, int64_t) {
      ++begun;
      SpinForAWhile([&] { return begun == 2; }, milliseconds(10));
      if (gettid() == caller) return;
      worker = gettid();
      ++worked;
      sched_setaffinity(0, sizeof(all), &all);
    });
    if (worked == 0) continue;
    std::this_thread::sleep_for(milliseconds(3));  // the worker may go on and fall asleep
    ++times;
    if (LastCore(worker) != core) ++left;
    PinTo(worker, core);
  }
  return left;
}

TEST_F(Parallel, AWorkerLeavesItsCallersCoreBeforeItSleeps) {
  if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "one core";
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(TimesTheWorkerLeft());
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_GE(WEXITSTATUS(status), 4) << "of eight times";
}
#endif

TEST_F(Parallel, WorksInAForkedChild) {
  EXPECT_EQ(Counts(0, 100, 1), std::vector<int>(100, 1));
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // Only exit() runs in the child beside the loops: no thread of OpenMP or of gtest lives here.
    std::atomic<int> items{0};
    for (int n = 0; n < 100; ++n) ParallelFor(0, 100, 1, [&](int64_t, int64_t) { ++items; });
    _exit(items == 10000 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(Counts(0, 100, 1), std::vector<int>(100, 1));
}
#endif

}  // namespace
}  // namespace lmfusion
