#pragma once

#include <cstdint>
#include <memory>
#include <optional>

namespace lmfusion {

// Note [Scratch]
// Working memory of one operator: packed activations, a widened panel, a tile of logits. It is
// borrowed from the process and goes back at the end of the operator, so what is held grows with
// the number of operators (and of threads in their loops) that run at once, not with the number of
// threads that ever ran one. At most kIdleScratchBytes lie ready for the next; what is given back
// beyond that is freed.
constexpr int64_t kIdleScratchBytes = int64_t{64} << 20;

// `bytes` bytes, 64-byte aligned, of any content. Throws std::bad_alloc.
class Scratch {
 public:
  explicit Scratch(int64_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* As() const {
    return static_cast<T*>(memory_);
  }

 private:
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
};

// `count` floats of any content, 64-byte aligned, for one chunk of a loop: few lie on the stack,
// since threads that take scratch for every chunk wait for each other.
class ChunkFloats {
 public:
  explicit ChunkFloats(int64_t count) {
    if (count > kOnStack) many_.emplace(count * static_cast<int64_t>(sizeof(float)));
  }
  float* data() { return many_ ? many_->As<float>() : few_; }

 private:
  static constexpr int64_t kOnStack = 4096;

  alignas(64) float few_[kOnStack];
  std::optional<Scratch> many_;
};

// Bytes of scratch in this process, borrowed and idle.
int64_t ScratchBytes();

}  // namespace lmfusion
