#pragma once

#include <memory>
#include <string_view>
#include <vector>

namespace lmfusion {

// What becomes of the matches of a pattern when a text is split by it (names as in tokenizer.json).
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

// A pattern that splits text into words. Immutable and thread safe.
class SplitPattern {
 public:
  // Throws TokenizerError where the pattern is wrong or not implemented (Note [Patterns]).
  explicit SplitPattern(std::string_view oniguruma);
  ~SplitPattern();
  SplitPattern(SplitPattern&&) noexcept;

  // The first match that begins at `from` or later; false where there is none.
  bool Find(std::string_view text, size_t from, size_t* begin, size_t* end) const;

  // Appends the parts of `text`, none of them empty. `invert`: the matches are what the pattern
  // does not match.
  void Split(std::string_view text, SplitBehavior behavior, bool invert,
             std::vector<std::string_view>* parts) const;

  // Note [Cuts]. Whether no match and no decision about one reaches across a cut ...
  bool RespectsCuts() const { return respects_cuts_; }
  // ... and whether matches end and begin at every cut.
  bool SplitsAtCuts() const { return splits_at_cuts_; }

 private:
  struct Code;
  std::unique_ptr<Code> code_;
  bool respects_cuts_ = false;
  bool splits_at_cuts_ = false;
};

}  // namespace lmfusion
