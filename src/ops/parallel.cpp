#include "ops/parallel.h"

#include <ATen/Parallel.h>
#if defined(__unix__)
#include <pthread.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace lmfusion {
namespace {

// Note [Waiting]
// A forward pass is hundreds of short parallel loops. Threads that sleep between them cost a
// wake-up each time; threads that spin until there is work take the cores that somebody else's
// threads need, the caller's own among them. So both the workers (for the next loop) and the
// calling thread (for pieces that are still being worked on) spin for kSpin, which is longer than
// the work between two loops, and then sleep.
// A loop's pieces are taken one by one from a counter. A worker that loses its core for a while
// holds up one piece only, and one that comes too late finds nothing left to do and is not waited
// for.
constexpr std::chrono::microseconds kSpin{60};

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// Calls done() until it is true or kSpin has passed; returns whether it was true.
template <class Condition>
bool Spin(Condition done) {
  const auto begin = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() - begin < kSpin);
  return done();
}

thread_local bool inside_loop = false;

struct Loop {
  Loop(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context)
      : next(begin), end(end), grain(grain), function(function), context(context) {}

  // Takes pieces until there are none left.
  void Work() {
    inside_loop = true;
    for (;;) {
      const int64_t piece = next.fetch_add(grain, std::memory_order_relaxed);
      if (piece >= end) break;
      try {
        function(context, piece, std::min(piece + grain, end));
      } catch (...) {
        next.store(end, std::memory_order_relaxed);
        const std::lock_guard<std::mutex> lock(error_mutex);
        if (!error) error = std::current_exception();
      }
    }
    inside_loop = false;
  }

  std::atomic<int64_t> next;
  const int64_t end, grain;
  const RangeFunction function;
  void* const context;
  std::atomic<int> workers{0};  // at work on it; changed under the pool's mutex
  int seats = 0;                // workers that may still join; under the pool's mutex
  bool caller_sleeps = false;   // under the pool's mutex
  std::mutex error_mutex;
  std::exception_ptr error;
};

class Pool {
 public:
  void Run(Loop* loop, int workers) {
    loop->seats = workers;
    bool wake;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(worker_count_) < workers) StartWorker();
      loops_.push_back(loop);
      posted_.fetch_add(1, std::memory_order_release);
      wake = sleeping_ > 0;
    }
    if (wake) workers == 1 ? work_.notify_one() : work_.notify_all();
    loop->Work();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      loops_.erase(std::find(loops_.begin(), loops_.end(), loop));
    }
    const auto finished = [loop] { return loop->workers.load(std::memory_order_acquire) == 0; };
    if (Spin(finished)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    loop->caller_sleeps = true;
    finished_.wait(lock, finished);
  }

 private:
  void StartWorker() {
    std::thread([this] { WorkForever(); }).detach();
    ++worker_count_;
  }

  // A loop with a free seat, or null. Holds mutex_.
  Loop* Join() {
    for (Loop* loop : loops_) {
      if (loop->seats == 0 || loop->next.load(std::memory_order_relaxed) >= loop->end) continue;
      --loop->seats;
      loop->workers.fetch_add(1, std::memory_order_relaxed);
      return loop;
    }
    return nullptr;
  }

  // Holds mutex_, without which the caller could be gone between the two.
  void Leave(Loop* loop) {
    const bool wake = loop->caller_sleeps;
    loop->workers.fetch_sub(1, std::memory_order_release);
    if (wake) finished_.notify_all();
  }

  void WorkForever() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      const uint64_t seen = posted_.load(std::memory_order_relaxed);
      while (Loop* loop = Join()) {
        lock.unlock();
        loop->Work();
        lock.lock();
        Leave(loop);
      }
      const auto posted = [this, seen] {
        return posted_.load(std::memory_order_acquire) != seen;
      };
      if (posted()) continue;
      lock.unlock();
      const bool found = Spin(posted);
      lock.lock();
      if (found) continue;
      ++sleeping_;
      work_.wait(lock, posted);
      --sleeping_;
    }
  }

  std::mutex mutex_;
  std::condition_variable work_, finished_;
  std::vector<Loop*> loops_;
  std::atomic<uint64_t> posted_{0};
  int sleeping_ = 0;
  int worker_count_ = 0;
};

// Never destroyed: workers may outlive every static object. A forked child has none of its
// parent's threads, and begins with a pool of its own.
std::atomic<Pool*> pool{nullptr};

Pool& ThePool() {
  static const bool created = [] {
    pool = new Pool;
#if defined(__unix__)
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
#endif
    return true;
  }();
  (void)created;
  return *pool.load(std::memory_order_acquire);
}

}  // namespace

void ParallelFor(int64_t begin, int64_t end, int64_t grain, RangeFunction function,
                 void* context) {
  if (begin >= end) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t pieces = (end - begin + grain - 1) / grain;
  const int64_t threads =
      inside_loop ? 1 : std::min<int64_t>(at::get_num_threads(), pieces);
  if (threads <= 1) {
    for (int64_t b = begin; b < end; b += grain) function(context, b, std::min(b + grain, end));
    return;
  }
  Loop loop(begin, end, grain, function, context);
  ThePool().Run(&loop, static_cast<int>(threads - 1));
  if (loop.error) std::rethrow_exception(loop.error);
}

}  // namespace lmfusion
