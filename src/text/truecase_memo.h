#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lmfusion {

// A text cased from left to right up to a treebank boundary. The last word of the last segment
// (the stretch between two boundaries) waits for the word that follows it.
struct TruecasePrefix {
  std::string source;   // the text as given
  std::string settled;  // the cased text before the last segment

  size_t segment_begin = 0;        // where the last segment begins in `source`
  std::vector<std::string> words;  // of the last segment, as given
  std::vector<std::string> cased;  // of the same, but for its last word
  std::string previous;            // the cased word before `words`; empty: it begins the text

  size_t bytes() const;  // about what it takes
};

// The prefixes used last, within a budget of bytes. Thread safe.
class TruecaseMemo {
 public:
  explicit TruecaseMemo(size_t budget_bytes) : generation_bytes_(budget_bytes / 2) {}

  std::shared_ptr<const TruecasePrefix> Find(std::string_view source);  // null: not remembered
  void Add(std::shared_ptr<const TruecasePrefix> prefix);

 private:
  // Keys are views of the prefixes' own `source`.
  using Generation = std::unordered_map<std::string_view, std::shared_ptr<const TruecasePrefix>>;

  void AddLocked(std::shared_ptr<const TruecasePrefix> prefix);

  std::mutex mutex_;
  const size_t generation_bytes_;
  size_t young_bytes_ = 0;
  Generation young_, old_;  // `old_` is dropped when `young_` is full, and `young_` takes its place
};

}  // namespace lmfusion
