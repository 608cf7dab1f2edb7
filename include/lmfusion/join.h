#pragma once

#include <string_view>

#include "lmfusion/options.h"

namespace lmfusion {

// What stands between a context and a word that follows it: one space, or nothing. Nothing where
// either is empty, or white space (any that Python's str.isspace() knows) is there already;
// otherwise, by `join`, always a space, never one, or as people write it: docs/boundaries.md has
// the rule. Both are valid UTF-8.
std::string_view Separator(std::string_view context, std::string_view word, Join join);

// Whether words of the character's script are written without spaces between them: Han, Kana, Thai,
// Lao, Khmer, Myanmar and others, and the punctuation that is only theirs.
bool IsWrittenWithoutSpaces(char32_t c);

// The same as Separator for one context and many words. `context` must outlive it.
class JoinAfter {
 public:
  JoinAfter(std::string_view context, Join join);
  std::string_view Separator(std::string_view word) const;

 private:
  // How the script beside a join is written.
  enum class Script { kNone, kSpaced, kHangul, kCjk, kUnspaced };
  static Script ScriptOf(char32_t c);
  static Script Before(std::string_view context);
  static Script After(std::string_view word);

  const std::string_view context_;
  const Join join_;
  bool open_ = false;          // nothing that follows begins with a space
  bool before_digit_ = false;  // no digit does
  Script script_ = Script::kNone;
};

}  // namespace lmfusion
