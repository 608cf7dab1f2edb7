#pragma once

#include <pybind11/pybind11.h>

#include <utility>

#include "arguments.h"
#include "lmfusion/call_watch.h"

namespace lmfusion {

// For a CallWatch: looks whether a signal came, Ctrl-C say, and calls progress(done, total), None
// for none. What either raises comes out as pybind11::error_already_set. Throws TypeError unless
// `progress` can be called. Where there is none, signals are looked for fifty times a second at
// most, and less often where other threads hold the interpreter's lock for long.
CallWatch::Function BetweenPasses(pybind11::handle progress);

// Calls `f` without the interpreter's lock; a signal, or an error of `progress`, ends the calls of
// scorers in it.
template <typename F>
auto Watched(pybind11::handle progress, F&& f) {
  CallWatch watch(BetweenPasses(progress));
  return Unlocked(std::forward<F>(f));
}

}  // namespace lmfusion
