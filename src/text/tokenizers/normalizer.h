#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizers/split_pattern.h"

namespace lmfusion {

// The normaliser of a tokenizer.json: steps that rewrite text before it is split. Immutable and
// thread safe.
class Normalizer {
 public:
  // Appends a step.
  void AddNfc();
  void AddPrepend(std::string prefix);
  void AddReplace(std::string from, std::string to);
  void AddReplacePattern(SplitPattern pattern, std::string to);

  size_t steps() const { return steps_.size(); }

  // Rewrites `text`, valid UTF-8. after_cut: what is put in front of a text is left out. Throws
  // Error where the text grows beyond all reason.
  std::string Apply(std::string_view text, bool after_cut = false) const;
  // Whether Apply(text) is known to be `text` itself.
  bool Keeps(std::string_view text) const;

  // Note [Cuts]: whether parts may be normalised on their own.
  bool AllowsCuts() const { return allows_cuts_; }
  bool WritesSpaceMarks() const { return writes_space_marks_; }  // every " " becomes "▁"

 private:
  struct Step {
    enum class Kind { kNfc, kPrepend, kReplace, kReplacePattern } kind;
    std::string from, to;
    std::shared_ptr<const SplitPattern> pattern;
  };
  std::vector<Step> steps_;
  bool allows_cuts_ = true;
  bool writes_space_marks_ = false;
};

// Canonical composition (NFC) of valid UTF-8, in O(n log n) for any text.
std::string Nfc(std::string_view text);

}  // namespace lmfusion
