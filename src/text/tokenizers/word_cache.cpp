#include "text/tokenizers/word_cache.h"

#include <algorithm>
#include <cstring>
#include <functional>

namespace lmfusion {

WordCache::WordCache() : entries_(kEntries) {}

size_t WordCache::Place(std::string_view word) {
  return std::hash<std::string_view>{}(word) % kEntries;
}

bool WordCache::Find(std::string_view word, std::vector<int32_t>* ids) const {
  if (word.size() > kMaxBytes) return false;
  const size_t place = Place(word);
  const std::lock_guard<std::mutex> lock(locks_[place % kLocks]);
  const Entry& entry = entries_[place];
  if (entry.bytes != word.size() || std::memcmp(entry.word.data(), word.data(), word.size()) != 0) {
    return false;
  }
  ids->insert(ids->end(), entry.ids.begin(), entry.ids.begin() + entry.id_count);
  return true;
}

void WordCache::Put(std::string_view word, const std::vector<int32_t>& ids, size_t first) const {
  const size_t count = ids.size() - first;
  if (word.size() > kMaxBytes || count > kMaxIds) return;
  const size_t place = Place(word);
  const std::lock_guard<std::mutex> lock(locks_[place % kLocks]);
  Entry& entry = entries_[place];
  entry.bytes = static_cast<uint8_t>(word.size());
  entry.id_count = static_cast<uint8_t>(count);
  std::copy(word.begin(), word.end(), entry.word.begin());
  std::copy(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end(), entry.ids.begin());
}

}  // namespace lmfusion
