#include "ops/torch_threads.h"

#include <ATen/Parallel.h>
#if defined(__unix__)
#include <dlfcn.h>
#endif

namespace lmfusion {
namespace {

// Loops of the kernels use as many threads as torch's.
// NOLINTNEXTLINE(cert-err58-cpp): it sets a pointer, and throws nothing.
[[maybe_unused]] const bool kProviderIsSet = [] {
  SetThreadCountProvider(&at::get_num_threads);
  return true;
}();

// Functions of the OpenMP and the MKL that torch uses, which a wheel brings with it; both hold for
// the calling thread. Null where torch has none.
struct TorchThreads {
  void (*set_openmp)(int) = nullptr;
  int (*set_mkl)(int) = nullptr;  // returns the last number; 0: as the process
};
const TorchThreads& TorchThreadSetters() {
  static const TorchThreads setters = [] {
    TorchThreads found;
#if defined(__unix__)
    if (void* torch = dlopen("libtorch_cpu.so", RTLD_NOW | RTLD_NOLOAD)) {
      found.set_openmp =
          reinterpret_cast<decltype(found.set_openmp)>(dlsym(torch, "omp_set_num_threads"));
      found.set_mkl =
          reinterpret_cast<decltype(found.set_mkl)>(dlsym(torch, "MKL_Set_Num_Threads_Local"));
    }
#endif
    return found;
  }();
  return setters;
}

}  // namespace

OnlyOurThreads::OnlyOurThreads(bool active)
    : active_(active && TorchThreadSetters().set_openmp != nullptr),
      torch_threads_(at::get_num_threads()) {
  if (!active_) return;
  ours_.emplace(ThreadCount());  // before torch has one thread; an outer OnlyOurThreads' number
  TorchThreadSetters().set_openmp(1);
  if (TorchThreadSetters().set_mkl != nullptr) mkl_threads_ = TorchThreadSetters().set_mkl(1);
}

OnlyOurThreads::~OnlyOurThreads() {
  if (!active_) return;
  TorchThreadSetters().set_openmp(torch_threads_);
  if (TorchThreadSetters().set_mkl != nullptr) TorchThreadSetters().set_mkl(mkl_threads_);
}

}  // namespace lmfusion
