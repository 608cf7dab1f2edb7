#pragma once

#include <optional>

#include "kernels/threads/parallel.h"

namespace lmfusion {

// While it lives, torch's own parallel loops on this thread run on this thread alone, and
// ParallelFor uses the threads that torch would have used. The OpenMP threads of torch and MKL spin
// for milliseconds after a loop, on the cores that this library's threads need: on two cores a
// forward pass that mixed the two ran as slowly as on one. Does nothing where it is not `active`.
class OnlyOurThreads {
 public:
  explicit OnlyOurThreads(bool active = true);
  ~OnlyOurThreads();
  OnlyOurThreads(const OnlyOurThreads&) = delete;
  OnlyOurThreads& operator=(const OnlyOurThreads&) = delete;

 private:
  const bool active_;
  const int torch_threads_;
  int mkl_threads_ = 0;
  std::optional<LoopThreads> ours_;
};

}  // namespace lmfusion
