#pragma once

#include <cstdint>
#include <functional>

namespace lmfusion {

// Watches the calls of one thread, to show how far they are or to end them. While a CallWatch
// lives, every scoring call and prime() that its thread makes, of any scorer, calls
// `between_passes` between two forward passes, some twenty times a second while it waits for calls
// of other threads, and at its end; always on the thread that made the call. What `between_passes`
// throws ends the call and comes out of it. What was computed until then stays in the cache, the
// scorer works on, and calls of other threads that shared forward passes with it go on.
//
// done, total: candidates, texts or paths, in the order in which they are computed; never falling
// within a call. A call of the scorer at work from within `between_passes` throws Error; stats() is
// no such call. Watches nest: the youngest is told.
//
//   lmfusion::CallWatch watch([&](int64_t, int64_t) { if (stop) throw Stopped(); });
//   scorer.score_texts(texts);
class CallWatch {
 public:
  using Function = std::function<void(int64_t done, int64_t total)>;

  explicit CallWatch(Function between_passes);
  ~CallWatch();
  CallWatch(const CallWatch&) = delete;
  CallWatch& operator=(const CallWatch&) = delete;

  // The rest is for the library.

  // The youngest of this thread, or null.
  static CallWatch* Current();
  // A call begins, of one piece.
  void Begin(int64_t total);
  // `begin` of the total are done; what is reported from here on is the share of the next `size`.
  void BeginPiece(int64_t begin, int64_t size);
  // part of `of` of the piece are done.
  void Report(int64_t part, int64_t of);

 private:
  const Function between_passes_;
  CallWatch* const previous_;
  int64_t total_ = 0, begin_ = 0, size_ = 0, done_ = 0;
};

}  // namespace lmfusion
