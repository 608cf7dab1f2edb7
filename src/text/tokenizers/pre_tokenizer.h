#pragma once

#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/tokenizers/split_pattern.h"

namespace lmfusion {

// The pre-tokenizer of a tokenizer.json: steps that split text into words, which are then encoded
// one by one. Immutable and thread safe.
class PreTokenizer {
 public:
  struct Digits {
    bool individual = false;  // each digit a word; otherwise each run of digits
  };
  struct Split {
    SplitPattern pattern;
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
  };
  struct ByteLevel {  // words are written byte by byte from here on
    bool add_prefix_space = false;
    std::optional<SplitPattern> pattern;
  };
  struct Metaspace {
    enum class Prepend { kAlways, kFirst, kNever } prepend = Prepend::kAlways;
    std::string mark;
    bool split = true;
  };
  using Step = std::variant<Digits, Split, ByteLevel, Metaspace>;

  explicit PreTokenizer(std::vector<Step> steps) : steps_(std::move(steps)) {}

  struct Words {
    std::vector<std::string_view> views;
    std::list<std::string> rewritten;  // what views of rewritten words point to
  };
  // Splits `text`. first: the text is the beginning of the whole text.
  void Apply(std::string_view text, bool first, Words* words) const;

  bool WritesBytes() const;
  bool WritesSpaceMarks() const;  // every " " becomes "▁"

  // Note [Cuts]. spaces: whether the text that comes here still has them (not "▁" instead).
  // Whether a text and its two parts give the same words, but perhaps for one across the cut ...
  bool AllowsCuts(bool spaces) const;
  // ... and whether there is none across the cut.
  bool SplitsAtCuts(bool spaces) const;

 private:
  static bool RespectsCuts(const Step& step, bool spaces);
  static bool SplitsAtCuts(const Step& step, bool spaces);

  std::vector<Step> steps_;
};

}  // namespace lmfusion
