#include "base/fork_guard.h"

#include <pthread.h>

#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

std::atomic<uint64_t> forks{0};  // between the first process and this one

const int kRegistered = pthread_atfork(nullptr, nullptr, [] { ++forks; });

}  // namespace

ForkGuard::ForkGuard() : state_(forks << 32) {}

void ForkGuard::Enter() {
  static_cast<void>(kRegistered);
  uint64_t state = state_.load();
  while (true) {
    uint64_t entered = state + 1;
    if (state >> 32 != forks) {
      const auto calls = static_cast<uint32_t>(state);
      if (calls > 0) {
        throw Error(
            "this process was forked while another thread was in a call of this scorer, whose "
            "state "
            "cannot be used here; fork before the first call or between calls, or make a new "
            "scorer "
            "after the fork");
      }
      entered = forks << 32 | 1;
    }
    if (state_.compare_exchange_weak(state, entered)) return;
  }
}

}  // namespace lmfusion
