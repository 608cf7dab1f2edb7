#include "kernels/threads/scratch.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

namespace lmfusion {
namespace {

constexpr int64_t kAlignment = 64;

struct Buffer {
  void* memory = nullptr;
  int64_t bytes = 0;
};

// Never destroyed: threads may use it longer than static objects live. Does not allocate but for
// the buffers themselves, so that giving back cannot fail.
class Pool {
 public:
  // The smallest idle buffer that is large enough, or a new one.
  Buffer Take(int64_t bytes) {
    bytes = (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      Buffer* best = nullptr;
      for (Buffer& buffer : idle_) {
        const bool fits = buffer.memory != nullptr && buffer.bytes >= bytes;
        if (fits && (best == nullptr || buffer.bytes < best->bytes)) best = &buffer;
      }
      if (best != nullptr) {
        idle_bytes_ -= best->bytes;
        return std::exchange(*best, Buffer{});
      }
    }
    void* memory = std::aligned_alloc(kAlignment, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    const std::lock_guard<std::mutex> lock(mutex_);
    bytes_ += bytes;
    return {memory, bytes};
  }

  // Keeps it in the place of the smallest, where it is larger than that and there is room.
  void GiveBack(Buffer buffer) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      Buffer& smallest =
          *std::min_element(idle_.begin(), idle_.end(),
                            [](const Buffer& a, const Buffer& b) { return a.bytes < b.bytes; });
      const int64_t kept = idle_bytes_ - smallest.bytes + buffer.bytes;
      if (buffer.bytes > smallest.bytes && kept <= kIdleScratchBytes) {
        idle_bytes_ = kept;
        std::swap(smallest, buffer);
      }
      bytes_ -= buffer.bytes;
    }
    std::free(buffer.memory);
  }

  int64_t bytes() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return bytes_;
  }

 private:
  std::mutex mutex_;
  std::array<Buffer, 32> idle_;
  int64_t idle_bytes_ = 0, bytes_ = 0;
};

Pool& ThePool() {
  static Pool* const pool = new Pool;
  return *pool;
}

}  // namespace

Scratch::Scratch(int64_t bytes) {
  const Buffer buffer = ThePool().Take(bytes);
  memory_ = buffer.memory;
  bytes_ = buffer.bytes;
}

Scratch::~Scratch() { ThePool().GiveBack({memory_, bytes_}); }

int64_t ScratchBytes() { return ThePool().bytes(); }

}  // namespace lmfusion
