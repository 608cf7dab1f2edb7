#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

namespace lmfusion {

// The token ids of short pieces of text (words) that were seen before. One place a piece by its
// hash, the newest wins: 2 MiB, never more. Thread safe.
class PieceCache {
 public:
  static constexpr size_t kMaxBytes = 30;  // of a piece
  static constexpr size_t kMaxIds = 8;

  PieceCache();

  // Appends the ids of `piece` to `ids` and returns true, where it is there.
  bool Find(std::string_view piece, std::vector<int32_t>* ids) const;
  // Keeps ids[first, end) for `piece`, unless either is too long.
  void Put(std::string_view piece, const std::vector<int32_t>& ids, size_t first) const;

 private:
  static constexpr size_t kEntries = size_t{1} << 15;
  static constexpr size_t kLocks = 256;
  static constexpr uint8_t kEmpty = 0xff;
  struct Entry {  // 64 bytes
    uint8_t bytes = kEmpty;
    uint8_t id_count = 0;
    std::array<char, kMaxBytes> piece;
    std::array<int32_t, kMaxIds> ids;
  };
  static size_t Place(std::string_view piece);

  mutable std::vector<Entry> entries_;
  mutable std::array<std::mutex, kLocks> locks_;
};

}  // namespace lmfusion
