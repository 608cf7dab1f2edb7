#include "kernels/linear/weight_memory.h"

#include <ATen/ATen.h>

#include <algorithm>
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
// the other in pieces of memory.
constexpr int64_t kLargePage = int64_t{2} << 20;
constexpr int64_t kPieceBytes = int64_t{32} << 20;
constexpr int64_t kAlignment = 64;

constexpr int64_t RoundedUp(int64_t bytes, int64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

#if defined(__linux__)
// A piece of address space; its pages come into being, as zeros, when they are touched.
class Piece {
 public:
  explicit Piece(int64_t bytes) : mapped_(RoundedUp(bytes, kLargePage) + kLargePage) {
    constexpr int kMayDo = PROT_READ | PROT_WRITE, kKind = MAP_PRIVATE | MAP_ANONYMOUS;
    void* memory = mmap(nullptr, mapped_, kMayDo, kKind, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<uint8_t*>(memory);
    const auto address = reinterpret_cast<uintptr_t>(mapping_);
    begin_ = mapping_ + (kLargePage - address % kLargePage) % kLargePage;
    size_ = mapping_ + mapped_ - begin_;
    madvise(begin_, size_, MADV_HUGEPAGE);  // small pages are as right, only slower
  }
  ~Piece() { munmap(mapping_, mapped_); }
  Piece(const Piece&) = delete;
  Piece& operator=(const Piece&) = delete;

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

at::Tensor WeightMemory(int64_t bytes) {
#if defined(__linux__)
  static std::mutex mutex;
  static std::weak_ptr<Piece> newest;
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Piece> piece = newest.lock();
  uint8_t* memory = piece ? piece->Take(bytes) : nullptr;
  if (memory == nullptr) {
    piece = std::make_shared<Piece>(std::max(bytes, kPieceBytes));
    memory = piece->Take(bytes);
    newest = piece;
  }
  return at::from_blob(
      memory, {bytes}, [piece](void*) {}, at::TensorOptions().dtype(at::kByte));
#else
  return at::zeros({bytes}, at::kByte);
#endif
}

}  // namespace lmfusion
