#include "lmfusion/call_watch.h"

#include <algorithm>
#include <utility>

namespace lmfusion {
namespace {

thread_local CallWatch* current = nullptr;

}  // namespace

CallWatch::CallWatch(Function between_passes)
    : between_passes_(std::move(between_passes)), previous_(std::exchange(current, this)) {}
CallWatch::~CallWatch() { current = previous_; }

CallWatch* CallWatch::Current() { return current; }

void CallWatch::Begin(int64_t total) {
  total_ = size_ = total;
  begin_ = done_ = 0;
}

void CallWatch::BeginPiece(int64_t begin, int64_t size) {
  begin_ = begin;
  size_ = size;
}

void CallWatch::Report(int64_t part, int64_t of) {
  done_ = std::max(done_, begin_ + (of > 0 ? size_ * part / of : size_));
  between_passes_(done_, total_);
}

}  // namespace lmfusion
