#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace lmfusion {

using LoopBody = void (*)(void* context, int64_t begin, int64_t end);
void ParallelFor(int64_t begin, int64_t end, int64_t grain, LoopBody body, void* context);

// Calls body(b, e) for chunks of [begin, end) of `grain` items (the last may be smaller) on at most
// ThreadCount() threads, the calling one among them, and returns when all are done. Which thread
// takes which chunk is open: each takes the next one when it has finished its last. Rethrows the
// first exception of `body`. May be called from many threads at once, and inside `body`, where it
// runs on the calling thread alone. See Note [Waiting] in parallel.cpp.
template <class Body>
void ParallelFor(int64_t begin, int64_t end, int64_t grain, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  ParallelFor(
      begin, end, grain,
      [](void* context, int64_t b, int64_t e) { (*static_cast<Plain*>(context))(b, e); },
      const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

// How many loops of this process several threads could take, so far. Tests count with it what would
// only be slow: every such loop ends with waiting for its slowest thread.
uint64_t SharedLoops();

// How many threads a loop of the calling thread may use: what a LoopThreads says, else what the
// process's provider says, else as many as the machine has cores.
int ThreadCount();

// The provider is asked at the beginning of every loop, on the thread that runs it. Null: none.
using ThreadCountProvider = int (*)();
void SetThreadCountProvider(ThreadCountProvider provider);

// While it lives, loops of this thread use `count` threads.
class LoopThreads {
 public:
  explicit LoopThreads(int count);
  ~LoopThreads();
  LoopThreads(const LoopThreads&) = delete;
  LoopThreads& operator=(const LoopThreads&) = delete;

 private:
  const int outer_;
};

}  // namespace lmfusion
