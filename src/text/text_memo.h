#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace lmfusion {

// What is known of the texts used last, within a budget of bytes. Entry has a string `source`, its
// key, and bytes(), about what it takes; entries do not change. Thread safe.
template <class Entry>
class TextMemo {
 public:
  explicit TextMemo(size_t budget_bytes) : generation_bytes_(budget_bytes / 2) {}

  // Null where it is not remembered.
  std::shared_ptr<const Entry> Find(std::string_view source) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (const auto found = young_.find(source); found != young_.end()) return found->second;
    const auto found = old_.find(source);
    if (found == old_.end()) return nullptr;
    std::shared_ptr<const Entry> entry = found->second;
    AddLocked(entry);
    return entry;
  }

  void Add(std::shared_ptr<const Entry> entry) {
    if (entry->bytes() > generation_bytes_ / 16) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    AddLocked(std::move(entry));
  }

  // Forgets every entry whose source begins so.
  void Forget(std::string_view beginning) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Generation* const generation : {&young_, &old_}) {
      for (auto each = generation->begin(); each != generation->end();) {
        if (each->first.substr(0, beginning.size()) != beginning) {
          ++each;
          continue;
        }
        if (generation == &young_) young_bytes_ -= each->second->bytes();
        each = generation->erase(each);
      }
    }
  }

 private:
  // Keys are views of the entries' own `source`.
  using Generation = std::unordered_map<std::string_view, std::shared_ptr<const Entry>>;

  void AddLocked(std::shared_ptr<const Entry> entry) {
    const size_t bytes = entry->bytes();
    if (young_bytes_ + bytes > generation_bytes_) {
      old_ = std::exchange(young_, {});
      young_bytes_ = 0;
    }
    const std::string_view source = entry->source;
    if (young_.emplace(source, std::move(entry)).second) young_bytes_ += bytes;
  }

  std::mutex mutex_;
  const size_t generation_bytes_;
  size_t young_bytes_ = 0;
  Generation young_, old_;  // `old_` is dropped when `young_` is full, and `young_` takes its place
};

}  // namespace lmfusion
