#pragma once

#include <atomic>
#include <cstdint>

namespace lmfusion {

// Note [Fork]
// A forked process is a copy of one thread: what another thread held at that moment (a mutex, half
// of a change to a tree) stays so for ever. So an object that threads use counts the calls in
// progress. The first call after a fork finds calls that were copied: their threads are not in this
// process, and nothing that they held can be trusted or waited for, so every call from then on
// throws. Where no call was in progress the object is whole, and works on.

// Counts the calls in progress of an object. Lock-free.
class ForkGuard {
 public:
  // A call in progress, while it lives. Throws Error in a process that was forked while another
  // thread's call of the same object was in progress.
  class Call {
   public:
    explicit Call(ForkGuard& guard) : guard_(guard) { guard_.Enter(); }
    ~Call() { guard_.state_.fetch_sub(1); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    ForkGuard& guard_;
  };

  ForkGuard();
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;

 private:
  void Enter();

  // Forks between the first process and the one that called last, and calls in progress there.
  std::atomic<uint64_t> state_;  // forks << 32 | calls
};

}  // namespace lmfusion
