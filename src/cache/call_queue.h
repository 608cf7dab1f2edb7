#pragma once

#include <condition_variable>
#include <mutex>

#include "cache/call.h"

namespace lmfusion {

// Note [Calls that wait run as one]
// A forward pass of few tokens takes as long as one of some more, so calls of several threads
// share forward passes. A call joins the queue. If nobody works, it becomes the leader: it takes
// all that wait, itself included, and does their work as one list of paths; the others sleep until
// theirs is done. Whatever the work throws, the leader gives the queue free again.
class CallQueue {
 public:
  // Returns once `call` is done. work(first): does the calls of a list, linked by `next`, and
  // throws nothing (what goes wrong is the `error` of a call). One thread works at a time.
  template <typename Work>
  void Run(Call* call, Work work) {
    std::unique_lock<std::mutex> lock(mutex_);
    (last_ == nullptr ? first_ : last_->next) = call;
    last_ = call;
    changed_.wait(lock, [&] { return call->done || !working_; });
    if (call->done) return;
    Call* const first = first_;
    first_ = last_ = nullptr;
    working_ = true;
    lock.unlock();
    static_assert(noexcept(work(first)), "a leader that throws would leave the others waiting");
    work(first);
    lock.lock();
    for (Call* each = first; each != nullptr;) {
      Call* const next = each->next;  // a call that is done may go at once
      each->done = true;
      each = next;
    }
    EndWork();
  }

  // Calls work() while nobody else works, and returns what it returns; calls that come meanwhile
  // wait. Throws what it throws.
  template <typename Work>
  auto RunAlone(Work work) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !working_; });
    working_ = true;
    lock.unlock();
    const EndOfWork end{*this};
    return work();
  }

 private:
  struct EndOfWork {
    CallQueue& queue;
    ~EndOfWork() {
      const std::lock_guard<std::mutex> lock(queue.mutex_);
      queue.EndWork();
    }
  };
  void EndWork() {
    working_ = false;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Call *first_ = nullptr, *last_ = nullptr;  // that wait
  bool working_ = false;
};

}  // namespace lmfusion
