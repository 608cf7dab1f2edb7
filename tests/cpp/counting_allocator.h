#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <unordered_map>

namespace lmfusion {

// Counts the bytes that tensors on the CPU take, while it lives, and refuses large ones; one at a
// time.
class CountingAllocator final : public c10::Allocator {
 public:
  CountingAllocator() : before_(c10::GetCPUAllocator()) {
    Counts() = {};
    c10::SetCPUAllocator(this, kPriority);
  }
  ~CountingAllocator() override { c10::SetCPUAllocator(before_, kPriority); }

  int64_t held() const { return Counts().held; }
  int64_t peak() const { return Counts().peak; }
  // Bytes of one tensor; 0: no limit.
  void SetLimit(int64_t bytes) { limit_ = bytes; }
  void ResetPeak() { Counts().peak = Counts().held; }

  c10::DataPtr allocate(size_t size) override {
    TORCH_CHECK_WITH(OutOfMemoryError, limit_ == 0 || static_cast<int64_t>(size) <= limit_,
                     "out of memory");
    void* memory = c10::alloc_cpu(size);
    Count(memory, static_cast<int64_t>(size));
    return {memory, memory, &Free, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t count) const override {
    std::memcpy(to, from, count);
  }

 private:
  static constexpr uint8_t kPriority = 100;
  struct State {
    int64_t held = 0, peak = 0;
    std::unordered_map<void*, int64_t> sizes;
  };
  // Tensors may outlive the allocator.
  static State& Counts() {
    static State state;
    return state;
  }
  static std::mutex& Mutex() {
    static std::mutex mutex;
    return mutex;
  }

  static void Count(void* memory, int64_t size) {
    const std::lock_guard<std::mutex> lock(Mutex());
    State& state = Counts();
    state.sizes[memory] = size;
    state.held += size;
    state.peak = std::max(state.peak, state.held);
  }
  static void Free(void* memory) {
    {
      const std::lock_guard<std::mutex> lock(Mutex());
      State& state = Counts();
      const auto found = state.sizes.find(memory);
      if (found != state.sizes.end()) {
        state.held -= found->second;
        state.sizes.erase(found);
      }
    }
    c10::free_cpu(memory);
  }

  c10::Allocator* const before_;
  int64_t limit_ = 0;
};

}  // namespace lmfusion
