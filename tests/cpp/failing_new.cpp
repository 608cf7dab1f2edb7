#include "failing_new.h"

#include <malloc.h>

#include <cstdlib>
#include <new>

namespace lmfusion {
namespace {

thread_local int64_t left = -1;  // allocations until one fails; -1: none will
thread_local int64_t held = 0;   // bytes
thread_local bool for_ever = false, failed = false;

bool Fails() {
  if (left < 0) return false;
  if (left > 0) {
    --left;
    return false;
  }
  failed = true;
  if (!for_ever) left = -1;
  return true;
}

}  // namespace

FailingNew::FailingNew(int64_t count, Mode mode) {
  left = count;
  for_ever = mode == Mode::kFromThenOn;
  failed = false;
}
FailingNew::~FailingNew() { left = -1; }
bool FailingNew::HasFailed() { return failed; }
int64_t FailingNew::HeldBytes() { return held; }

}  // namespace lmfusion

void* operator new(size_t size) {
  if (lmfusion::Fails()) throw std::bad_alloc();
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  lmfusion::held += static_cast<int64_t>(malloc_usable_size(memory));
  return memory;
}
void* operator new[](size_t size) { return operator new(size); }
void operator delete(void* memory) noexcept {
  lmfusion::held -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}
void operator delete[](void* memory) noexcept { operator delete(memory); }
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }
void operator delete[](void* memory, size_t) noexcept { operator delete(memory); }
