#include "kernels/linear/weight_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lmfusion {
namespace {

// Note [Large pages]
// Weights are read once a forward pass, so that in pages of 4 KB nearly every page is one that the
// TLB does not know, and no prefetcher of the CPU goes past the end of a page. In pages of 2 MB one
// thread reads half as fast again. Most matrices are smaller than such a page: they lie one behind
// the other in mappings of 32 MB.
constexpr int64_t kLargePage = int64_t{2} << 20;
constexpr int64_t kMappingBytes = int64_t{32} << 20;
constexpr int64_t kAlignment = 64;

constexpr int64_t RoundedUp(int64_t bytes, int64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

#if defined(__linux__)
// A range of addresses; its pages come into being, as zeros, when they are touched.
class Mapping {
 public:
  explicit Mapping(int64_t bytes) : mapped_(RoundedUp(bytes, kLargePage) + kLargePage) {
    constexpr int kMayDo = PROT_READ | PROT_WRITE, kKind = MAP_PRIVATE | MAP_ANONYMOUS;
    void* memory = mmap(nullptr, mapped_, kMayDo, kKind, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<uint8_t*>(memory);
    const auto address = reinterpret_cast<uintptr_t>(mapping_);
    begin_ = mapping_ + (kLargePage - address % kLargePage) % kLargePage;
    size_ = mapping_ + mapped_ - begin_;
    madvise(begin_, size_, MADV_HUGEPAGE);  // small pages are as right, only slower
  }
  ~Mapping() { munmap(mapping_, mapped_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  // The next bytes that nobody has, or null.
  uint8_t* Take(int64_t bytes) {
    if (size_ - taken_ < bytes) return nullptr;
    uint8_t* memory = begin_ + taken_;
    taken_ = std::min(size_, taken_ + RoundedUp(bytes, kAlignment));
    return memory;
  }

 private:
  int64_t mapped_, size_, taken_ = 0;
  uint8_t *mapping_, *begin_;
};
#endif

}  // namespace

std::shared_ptr<uint8_t> WeightMemory(int64_t bytes) {
#if defined(__linux__)
  static std::mutex mutex;
  static std::weak_ptr<Mapping> newest;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Mapping> mapping = newest.lock();
  uint8_t* memory = mapping ? mapping->Take(bytes) : nullptr;
  if (memory == nullptr) {
    mapping = std::make_shared<Mapping>(std::max(bytes, kMappingBytes));
    memory = mapping->Take(bytes);
    newest = mapping;
  }
  return {mapping, memory};  // shares the mapping, points to its own part
#else
  const int64_t size = std::max(RoundedUp(bytes, kAlignment), kAlignment);
  auto* memory = static_cast<uint8_t*>(std::aligned_alloc(kAlignment, size));
  if (memory == nullptr) throw std::bad_alloc();
  std::memset(memory, 0, size);
  return {memory, &std::free};
#endif
}

}  // namespace lmfusion
