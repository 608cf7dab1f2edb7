#include "text/truecase_memo.h"

#include <utility>

namespace lmfusion {

size_t TruecasePrefix::bytes() const {
  size_t total = 256 + source.size() + settled.size() + previous.size();
  for (const std::string& word : words) total += 2 * (sizeof word + word.size());
  return total;
}

std::shared_ptr<const TruecasePrefix> TruecaseMemo::Find(std::string_view source) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const auto found = young_.find(source); found != young_.end()) return found->second;
  const auto found = old_.find(source);
  if (found == old_.end()) return nullptr;
  std::shared_ptr<const TruecasePrefix> prefix = found->second;
  AddLocked(prefix);
  return prefix;
}

void TruecaseMemo::Add(std::shared_ptr<const TruecasePrefix> prefix) {
  if (prefix->bytes() > generation_bytes_ / 16) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  AddLocked(std::move(prefix));
}

void TruecaseMemo::AddLocked(std::shared_ptr<const TruecasePrefix> prefix) {
  const size_t bytes = prefix->bytes();
  if (young_bytes_ + bytes > generation_bytes_) {
    old_ = std::exchange(young_, {});
    young_bytes_ = 0;
  }
  const std::string_view source = prefix->source;
  if (young_.emplace(source, std::move(prefix)).second) young_bytes_ += bytes;
}

}  // namespace lmfusion
