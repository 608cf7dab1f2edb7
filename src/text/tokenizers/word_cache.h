#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

namespace lmfusion {

// The token ids of short words (what a pre-tokenizer splits a text into) that were seen before.
// Each word has one place, by its hash, the newest wins: 2 MiB, never more. Thread safe.
class WordCache {
 public:
  static constexpr size_t kMaxBytes = 30;  // of a word
  static constexpr size_t kMaxIds = 8;

  WordCache();

  // Appends the ids of `word` to `ids` and returns true, where it is there.
  bool Find(std::string_view word, std::vector<int32_t>* ids) const;
  // Keeps ids[first, end) for `word`, unless either is too long.
  void Put(std::string_view word, const std::vector<int32_t>& ids, size_t first) const;

 private:
  static constexpr size_t kEntries = size_t{1} << 15;
  static constexpr size_t kLocks = 256;
  static constexpr uint8_t kEmpty = 0xff;
  struct Entry {  // 64 bytes
    uint8_t bytes = kEmpty;
    uint8_t id_count = 0;
    std::array<char, kMaxBytes> word;
    std::array<int32_t, kMaxIds> ids;
  };
  static size_t Place(std::string_view word);

  mutable std::vector<Entry> entries_;
  mutable std::array<std::mutex, kLocks> locks_;
};

}  // namespace lmfusion
