#pragma once

#include <ATen/ThreadLocalState.h>
#include <ATen/record_function.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <memory>

namespace lmfusion {

// While it lives, torch is on this thread as if its caller had never told it anything: no autocast,
// no inference or grad mode, no modes written in Python, and products in full float32 precision.
// Only profilers that watch the thread go on watching.
// Decoders call under autocast; cast operators would change scores, and what is computed so would
// stay in the cache for everybody.
//
// Thread-local state is exchanged. Matmul precision and deterministic mode belong to the process:
// where the caller lowered or set them, they are put back when the last of these objects goes, so
// other threads of the caller may for that time multiply more exactly than they asked.
class CallersStateAside {
 public:
  CallersStateAside();
  ~CallersStateAside();
  CallersStateAside(const CallersStateAside&) = delete;
  CallersStateAside& operator=(const CallersStateAside&) = delete;

 private:
  const at::RecordFunctionTLS watchers_;
  const std::shared_ptr<c10::ThreadLocalDebugInfo> profile_;
  const at::ThreadLocalStateGuard thread_;
  const bool process_;  // whether the settings of the process were changed too
};

}  // namespace lmfusion
