#include "text/tokenizers/piece_cache.h"

#include <algorithm>
#include <cstring>
#include <functional>

namespace lmfusion {

PieceCache::PieceCache() : entries_(kEntries) {}

size_t PieceCache::Place(std::string_view piece) {
  return std::hash<std::string_view>{}(piece) % kEntries;
}

bool PieceCache::Find(std::string_view piece, std::vector<int32_t>* ids) const {
  if (piece.size() > kMaxBytes) return false;
  const size_t place = Place(piece);
  const std::lock_guard<std::mutex> lock(locks_[place % kLocks]);
  const Entry& entry = entries_[place];
  if (entry.bytes != piece.size() ||
      std::memcmp(entry.piece.data(), piece.data(), piece.size()) != 0) {
    return false;
  }
  ids->insert(ids->end(), entry.ids.begin(), entry.ids.begin() + entry.id_count);
  return true;
}

void PieceCache::Put(std::string_view piece, const std::vector<int32_t>& ids, size_t first) const {
  const size_t count = ids.size() - first;
  if (piece.size() > kMaxBytes || count > kMaxIds) return;
  const size_t place = Place(piece);
  const std::lock_guard<std::mutex> lock(locks_[place % kLocks]);
  Entry& entry = entries_[place];
  entry.bytes = static_cast<uint8_t>(piece.size());
  entry.id_count = static_cast<uint8_t>(count);
  std::copy(piece.begin(), piece.end(), entry.piece.begin());
  std::copy(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end(), entry.ids.begin());
}

}  // namespace lmfusion
