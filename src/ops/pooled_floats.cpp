#include "ops/pooled_floats.h"

#include <ATen/EmptyTensor.h>
#include <c10/core/Allocator.h>

#include <cstring>
#include <memory>
#include <vector>

#include "kernels/threads/scratch.h"

namespace lmfusion {
namespace {

class ScratchAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    auto scratch = std::make_unique<Scratch>(static_cast<int64_t>(bytes));
    void* const memory = scratch->As<void>();
    return {memory, scratch.release(), &GiveBack, c10::Device(c10::kCPU)};
  }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }

 private:
  static void GiveBack(void* scratch) { delete static_cast<Scratch*>(scratch); }
};

}  // namespace

at::Tensor EmptyFloats(at::IntArrayRef sizes) {
  static auto* const allocator = new ScratchAllocator;  // tensors may outlive static objects
  constexpr c10::DispatchKeySet kCpu(c10::DispatchKey::CPU);
  return at::detail::empty_generic(sizes, allocator, kCpu, at::kFloat, std::nullopt);
}

at::Tensor EmptyRows(const at::Tensor& x, int64_t width) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = width;
  return EmptyFloats(sizes);
}

}  // namespace lmfusion
