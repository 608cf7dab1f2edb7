#include "kernels/threads/parallel.h"

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

#include "kernels/threads/core.h"

namespace lmfusion {
namespace {

// Note [Waiting]
// A forward pass is hundreds of short parallel loops. Threads that sleep between them cost a
// wake-up each time; threads that spin until there is work take the cores that somebody else's
// threads need, the caller's own among them. So both the workers (for the next loop) and the
// calling thread (for chunks that are still being worked on) spin for kSpin, which is longer than
// the work between two loops, and then sleep.
// A loop's chunks are taken one by one from counters. A worker that comes too late finds nothing
// left to do and is not waited for; one that loses its core holds up one chunk, until it has the
// core back after some milliseconds. And where no core is free the system runs a woken worker on
// the core of the thread that woke it, in its place. So where a caller waits much longer than a
// chunk takes, or a worker finds itself on its caller's core, the machine is crowded: loops then
// stay on their callers' threads for kAlone times what was lost, and for twice as long each time
// that it happens again. Two threads thus lose little where there is nothing to gain.
// A worker that sleeps is woken on the core where it last ran, though another may be idle by then.
// One that fell asleep on its caller's core would be in the way at every later try, and each is too
// short for the system to move it: loops stayed alone for seconds. So it moves before it sleeps.
using Clock = std::chrono::steady_clock;
constexpr std::chrono::microseconds kSpin{60};
constexpr std::chrono::microseconds kLongWait{150};
constexpr std::chrono::microseconds kSwitch{100};  // what a worker on the same core costs, about
constexpr int kAlone = 2;
constexpr std::chrono::milliseconds kLongestAlone{100};
constexpr int kCalmLoops = 64;  // loops in a row after which the machine is not crowded any more

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
  const auto begin = Clock::now();
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      Pause();
    }
  } while (Clock::now() - begin < kSpin);
  return done();
}

thread_local bool inside_loop = false;
thread_local int thread_count = 0;  // set by LoopThreads; 0: what the provider says

int CoreCount() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

std::atomic<ThreadCountProvider> provider{&CoreCount};
std::atomic<uint64_t> shared_loops{0};

// A loop's items in as many ranges as threads may work on it. A thread takes chunks of its own
// range, from its beginning on, and then what is left of the others': data that lies in the order
// of the items, as weights do, is read in order.
class Loop {
 public:
  Loop(int64_t begin, int64_t end, int64_t grain, int threads, LoopBody body, void* context)
      : grain_(grain), body_(body), context_(context), seats(threads - 1) {
    const int64_t chunks = (end - begin + grain - 1) / grain;
    ranges_ = static_cast<int>(std::min<int64_t>(threads, kMostRanges));
    for (int i = 0; i < ranges_; ++i) {
      range_[i].next = begin + chunks * i / ranges_ * grain;
      range_[i].end = std::min(end, begin + chunks * (i + 1) / ranges_ * grain);
    }
  }

  bool has_work() const {
    return std::any_of(range_, range_ + ranges_, [](const Range& range) {
      return range.next.load(std::memory_order_relaxed) < range.end;
    });
  }

  // Takes chunks until there are none left; returns how many those were. The caller is thread 0.
  int Work(int thread) {
    inside_loop = true;
    int taken = 0;
    for (int i = 0; i < ranges_; ++i) taken += WorkOn(&range_[(thread + i) % ranges_]);
    inside_loop = false;
    return taken;
  }

  void Rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  struct alignas(64) Range {
    std::atomic<int64_t> next;
    int64_t end;
  };
  static constexpr int kMostRanges = 16;

  int WorkOn(Range* range) {
    int taken = 0;
    for (;; ++taken) {
      const int64_t chunk = range->next.fetch_add(grain_, std::memory_order_relaxed);
      if (chunk >= range->end) return taken;
      try {
        body_(context_, chunk, std::min(chunk + grain_, range->end));
      } catch (...) {
        for (int i = 0; i < ranges_; ++i) range_[i].next.store(range_[i].end);
        const std::lock_guard<std::mutex> lock(error_mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
  }

  Range range_[kMostRanges];
  int ranges_;
  const int64_t grain_;
  const LoopBody body_;
  void* const context_;
  std::mutex error_mutex_;
  std::exception_ptr error_;

 public:
  std::atomic<int> workers{0};  // at work on it; changed under the pool's mutex
  int seats;                    // workers that may still join; under the pool's mutex
  int joined = 0;               // workers that did; under the pool's mutex
  bool caller_sleeps = false;   // under the pool's mutex
  int core = -1;                // of the caller
};

// When loops stay on their callers' threads, see Note [Waiting].
class Crowding {
 public:
  bool Alone(Clock::time_point now) const {
    return now.time_since_epoch().count() < alone_until_.load(std::memory_order_relaxed);
  }

  // A caller took `own` for `chunks` chunks and waited for others until `now`.
  void Waited(Clock::duration waited, Clock::duration own, int chunks, Clock::time_point now) {
    if (waited >= kLongWait + 4 * own / std::max(chunks, 1)) {
      Lost(waited, now);
    } else if (calm_.fetch_add(1, std::memory_order_relaxed) >= kCalmLoops) {
      alone_.store(0, std::memory_order_relaxed);
    }
  }

  void Lost(Clock::duration time, Clock::time_point now) {
    const Clock::rep longest = Clock::duration(kLongestAlone).count();
    const Clock::rep again = 2 * alone_.load(std::memory_order_relaxed);
    const Clock::rep alone = std::min(std::max((time * kAlone).count(), again), longest);
    calm_.store(0, std::memory_order_relaxed);
    alone_.store(alone, std::memory_order_relaxed);
    alone_until_.store(now.time_since_epoch().count() + alone, std::memory_order_relaxed);
  }

 private:
  std::atomic<Clock::rep> alone_until_{0}, alone_{0};
  std::atomic<int> calm_{0};
};

class Pool {
 public:
  void Run(Loop* loop) {
    const Clock::time_point begin = Clock::now();
    if (crowding_.Alone(begin)) {
      loop->Work(0);
      return;
    }
    const int workers = loop->seats;
    loop->core = CurrentCore();
    bool wake;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(worker_count_) < workers) StartWorker();
      loops_.push_back(loop);
      posted_.fetch_add(1, std::memory_order_release);
      wake = sleeping_ > 0;
    }
    if (wake) workers == 1 ? work_.notify_one() : work_.notify_all();
    const int chunks = loop->Work(0);
    const Clock::time_point done = Clock::now();
    Finish(loop);
    const Clock::time_point end = Clock::now();
    crowding_.Waited(end - done, done - begin, chunks, end);
  }

 private:
  // Waits for the workers that are still at it.
  void Finish(Loop* loop) {
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

  void StartWorker() {
    std::thread([this] { WorkForever(); }).detach();
    ++worker_count_;
  }

  // A loop with a free seat, or null; `thread` is then the worker's number in it. Holds mutex_.
  Loop* Join(int* thread) {
    for (Loop* loop : loops_) {
      if (loop->seats == 0 || !loop->has_work()) continue;
      --loop->seats;
      *thread = ++loop->joined;
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
      bool in_the_way = false;
      int thread = 0, core = -1;
      while (Loop* loop = Join(&thread)) {
        core = CurrentCore();
        in_the_way = core >= 0 && core == loop->core;
        lock.unlock();
        if (in_the_way) crowding_.Lost(kSwitch, Clock::now());
        loop->Work(thread);
        lock.lock();
        Leave(loop);
      }
      const auto posted = [this, seen] { return posted_.load(std::memory_order_acquire) != seen; };
      if (posted()) continue;
      lock.unlock();
      const bool found = in_the_way ? LeaveCore(core) && posted() : Spin(posted);
      lock.lock();
      if (found) continue;
      ++sleeping_;
      work_.wait(lock, posted);
      --sleeping_;
    }
  }

  Crowding crowding_;
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

void ParallelFor(int64_t begin, int64_t end, int64_t grain, LoopBody body, void* context) {
  if (begin >= end) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t chunks = (end - begin + grain - 1) / grain;
  const int64_t threads = inside_loop ? 1 : std::min<int64_t>(ThreadCount(), chunks);
  if (threads <= 1) {
    for (int64_t b = begin; b < end; b += grain) body(context, b, std::min(b + grain, end));
    return;
  }
  shared_loops.fetch_add(1, std::memory_order_relaxed);
  Loop loop(begin, end, grain, static_cast<int>(threads), body, context);
  ThePool().Run(&loop);
  loop.Rethrow();
}

uint64_t SharedLoops() { return shared_loops.load(std::memory_order_relaxed); }

void SetThreadCountProvider(ThreadCountProvider count) {
  provider = count != nullptr ? count : &CoreCount;
}

int ThreadCount() { return thread_count > 0 ? thread_count : provider.load()(); }

LoopThreads::LoopThreads(int count) : outer_(thread_count) { thread_count = count; }

LoopThreads::~LoopThreads() { thread_count = outer_; }

}  // namespace lmfusion
