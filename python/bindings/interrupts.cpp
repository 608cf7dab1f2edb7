#include "interrupts.h"

#include <algorithm>
#include <chrono>

namespace py = pybind11;

namespace lmfusion {
namespace {

using Clock = std::chrono::steady_clock;
constexpr Clock::duration kApart = std::chrono::milliseconds(20);

void CheckSignals() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace

CallWatch::Function BetweenPasses(py::handle progress) {
  if (progress.is_none()) {
    return [next = Clock::now() + kApart](int64_t, int64_t) mutable {
      const Clock::time_point now = Clock::now();
      if (now < next) return;
      const py::gil_scoped_acquire acquire;
      CheckSignals();
      const Clock::time_point checked = Clock::now();
      next = checked + std::max(kApart, 20 * (checked - now));
    };
  }
  if (PyCallable_Check(progress.ptr()) == 0) {
    ThrowTypeError({"progress"}, progress, "a function of (done, total), or None,");
  }
  return [progress](int64_t done, int64_t total) {
    const py::gil_scoped_acquire acquire;
    CheckSignals();
    progress(done, total);
  };
}

}  // namespace lmfusion
