#pragma once

#include <cstdint>

namespace lmfusion {

// A program with failing_new.cpp has an operator new that can be made to fail, thread by thread:
// while this lives, allocation number `count` (from 0) of the calling thread throws std::bad_alloc,
// and with kFromThenOn all after it do.
class FailingNew {
 public:
  enum class Mode { kOnce, kFromThenOn };

  explicit FailingNew(int64_t count, Mode mode = Mode::kOnce);
  ~FailingNew();
  FailingNew(const FailingNew&) = delete;
  FailingNew& operator=(const FailingNew&) = delete;

  // Whether an allocation of this thread failed since the last of these was made.
  static bool HasFailed();
  // Bytes that this thread has allocated and not given back; what another thread freed is counted
  // there.
  static int64_t HeldBytes();
};

}  // namespace lmfusion
