#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "cache/call.h"
#include "lmfusion/errors.h"

namespace lmfusion {

// Note [Calls that wait run as one]
// A forward pass of few tokens takes as long as one of some more, so calls of several threads
// share forward passes. A call joins the queue. If nobody works, it becomes the leader: it takes
// all that wait, itself included, and does their work as one list of paths; the others sleep until
// theirs is done. Whatever the work throws, the leader gives the queue free again.
//
// Note [A call that ends early]
// A call with a watch (call_watch.h) may end between two forward passes. Watches run on the threads
// of their callers only: the leader asks its own, and who sleeps wakes now and then to ask. A
// sleeper whose watch throws leaves the queue, or, where the leader has its call, marks it as
// withdrawn and sleeps until it is given back. The leader that finds a call withdrawn, its own
// included, keeps what was computed and stops; what is not settled then goes back to the head of
// the queue, for the next leader, who finds all that was computed in the cache.
class CallQueue {
 public:
  // Returns once `call` is done or has ended early. work(first): does the calls of a list, linked
  // by `next`, marks as settled those that it did, and throws nothing. One thread works at a time.
  template <typename Work>
  void Run(Call* call, Work work) {
    std::unique_lock<std::mutex> lock(mutex_);
    CheckNotWithin();
    *End() = call;
    while (!call->done) {
      if (working_) {
        Sleep(lock, call);
        continue;
      }
      Call* const first = first_;
      first_ = nullptr;
      BeginWork();
      lock.unlock();
      static_assert(noexcept(work(first)), "a leader that throws would leave the others waiting");
      work(first);
      lock.lock();
      GiveBack(first);
      EndWork();
    }
  }

  // Calls work() while nobody else works, and returns what it returns; calls that come meanwhile
  // wait. Throws what it throws, and what the thread's watch throws while it waits.
  template <typename Work>
  auto RunAlone(Work work) {
    std::unique_lock<std::mutex> lock(mutex_);
    CheckNotWithin();
    while (!Wait(lock, CallWatch::Current(), [&] { return !working_; })) {
      lock.unlock();
      CallWatch::Current()->Report(0, 1);
      lock.lock();
    }
    BeginWork();
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
  void BeginWork() {
    working_ = true;
    worker_ = std::this_thread::get_id();
  }
  void EndWork() {
    working_ = false;
    changed_.notify_all();
  }

  void CheckNotWithin() const {
    if (!working_ || worker_ != std::this_thread::get_id()) return;
    throw Error(
        "a call of the scorer at work, from within the progress function of one; give that "
        "function "
        "another scorer, or none");
  }

  Call** End() {
    Call** end = &first_;
    while (*end != nullptr) end = &(*end)->next;
    return end;
  }

  // False: the watch is to be asked.
  template <typename Ready>
  bool Wait(std::unique_lock<std::mutex>& lock, const CallWatch* watch, Ready ready) {
    if (watch != nullptr) return changed_.wait_for(lock, std::chrono::milliseconds(50), ready);
    changed_.wait(lock, ready);
    return true;
  }

  void Sleep(std::unique_lock<std::mutex>& lock, Call* call) {
    const CallWatch* const watch = call->withdrawn ? nullptr : call->watch;
    if (Wait(lock, watch, [&] { return call->done || !working_; })) return;
    lock.unlock();
    const bool goes_on = call->Tell();
    lock.lock();
    if (goes_on) return;
    call->withdrawn = true;
    for (Call** each = &first_; *each != nullptr; each = &(*each)->next) {
      if (*each != call) continue;
      *each = call->next;
      call->done = true;
      return;
    }
  }

  // Lets calls go that are settled or withdrawn; the others wait again, before those that came
  // meanwhile.
  void GiveBack(Call* list) {
    Call** head = &first_;
    while (list != nullptr) {
      Call* const call = list;
      list = call->next;  // a call that is done may go at once
      if (call->settled || call->withdrawn) {
        call->done = true;
        continue;
      }
      call->next = *head;
      *head = call;
      head = &call->next;
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  Call* first_ = nullptr;  // of those that wait
  bool working_ = false;
  std::thread::id worker_;
};

}  // namespace lmfusion
