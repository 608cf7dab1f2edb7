#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace lmfusion {

using RangeFunction = void (*)(void* context, int64_t begin, int64_t end);
void ParallelFor(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context);

// Calls function(b, e) for pieces of [begin, end) of `grain` items (the last may be smaller) on at
// most at::get_num_threads() threads, the calling one among them, and returns when all are done.
// Which thread takes which piece is open: each takes the next one when it has finished its last.
// Rethrows the first exception of `function`. May be called from many threads at once, and inside
// `function`, where it runs on the calling thread alone. See Note [Waiting] in parallel.cpp.
template <class Function>
void ParallelFor(int64_t begin, int64_t end, int64_t grain, Function&& function) {
  using Plain = std::remove_reference_t<Function>;
  ParallelFor(
      begin, end, grain,
      [](void* context, int64_t b, int64_t e) { (*static_cast<Plain*>(context))(b, e); },
      const_cast<void*>(static_cast<const void*>(std::addressof(function))));
}

// While it lives, torch's own parallel loops on this thread run on this thread alone, and
// ParallelFor uses the threads that torch would have used. The OpenMP threads of torch and MKL spin
// for milliseconds after a loop, on the cores that this pool's threads need: on two cores a forward
// pass that mixed the two ran as slowly as on one. Does nothing where it is not `active`.
class OnlyOurThreads {
 public:
  explicit OnlyOurThreads(bool active = true);
  ~OnlyOurThreads();
  OnlyOurThreads(const OnlyOurThreads&) = delete;
  OnlyOurThreads& operator=(const OnlyOurThreads&) = delete;

 private:
  const bool active_;
  const int torch_threads_, outer_;
  int mkl_threads_ = 0;
};

}  // namespace lmfusion
