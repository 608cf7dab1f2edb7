#include "engine/callers_state.h"

#include <ATen/Context.h>

#include <mutex>
#include <optional>
#include <thread>

namespace lmfusion {
namespace {

using at::Float32Backend;
using at::Float32Op;
using at::Float32Precision;

// The state of a thread on which nothing has happened yet.
const at::ThreadLocalState& FreshState() {
  static const at::ThreadLocalState fresh = [] {
    std::optional<at::ThreadLocalState> state;
    std::thread([&state] { state.emplace(); }).join();
    return *state;
  }();
  return fresh;
}

bool IsFull(Float32Precision precision) {
  return precision == Float32Precision::NONE || precision == Float32Precision::IEEE;
}

class ProcessSettings {
 public:
  // Whether something is to be changed; if so, it is, until as many calls of Leave.
  bool Enter() {
    at::Context& torch = at::globalContext();
    std::lock_guard<std::mutex> lock(mutex_);
    if (users_ == 0) {
      if (IsFull(Matmul(torch, Float32Backend::MKLDNN)) &&
          IsFull(Matmul(torch, Float32Backend::CUDA)) && !torch.deterministicAlgorithms()) {
        return false;
      }
      cpu_ = Matmul(torch, Float32Backend::MKLDNN);
      cuda_ = Matmul(torch, Float32Backend::CUDA);
      deterministic_ = torch.deterministicAlgorithms();
      warn_only_ = torch.deterministicAlgorithmsWarnOnly();
      Set(torch, IsFull(cpu_) ? cpu_ : Float32Precision::IEEE,
          IsFull(cuda_) ? cuda_ : Float32Precision::IEEE, false, false);
    }
    ++users_;
    return true;
  }

  void Leave() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (--users_ == 0) Set(at::globalContext(), cpu_, cuda_, deterministic_, warn_only_);
  }

 private:
  static Float32Precision Matmul(const at::Context& torch, Float32Backend backend) {
    return torch.float32Precision(backend, Float32Op::MATMUL);
  }

  static void Set(at::Context& torch, Float32Precision cpu, Float32Precision cuda,
                  bool deterministic, bool warn_only) {
    torch.setFloat32Precision(Float32Backend::MKLDNN, Float32Op::MATMUL, cpu);
    torch.setFloat32Precision(Float32Backend::CUDA, Float32Op::MATMUL, cuda);
    torch.setDeterministicAlgorithms(deterministic, warn_only);
  }

  std::mutex mutex_;
  int users_ = 0;
  Float32Precision cpu_ = Float32Precision::NONE, cuda_ = Float32Precision::NONE;
  bool deterministic_ = false, warn_only_ = false;
};

ProcessSettings& Settings() {
  static ProcessSettings settings;
  return settings;
}

}  // namespace

CallersStateAside::CallersStateAside()
    : watchers_(at::get_record_function_tls_()),
      profile_(c10::ThreadLocalDebugInfo::current()),
      thread_(FreshState()),
      process_(Settings().Enter()) {
  at::set_record_function_tls_(watchers_);
  c10::ThreadLocalDebugInfo::_forceCurrentDebugInfo(profile_);
}

CallersStateAside::~CallersStateAside() {
  if (process_) Settings().Leave();
}

}  // namespace lmfusion
