#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "text/text_memo.h"

namespace lmfusion {

// A text cased from left to right up to a treebank boundary. What stands between two boundaries is
// a stretch; the case of the last word of the last stretch is not decided yet, since it depends on
// the word that follows.
struct TruecasePrefix {
  std::string source;   // the text as given
  std::string settled;  // the cased text before the last stretch

  size_t stretch_begin = 0;        // where the last stretch begins in `source`
  std::vector<std::string> words;  // of the last stretch, as given
  std::vector<std::string> cased;  // of the same, but for its last word
  std::string previous;            // the cased word before `words`; empty: it begins the text

  size_t bytes() const;  // about what it takes
};

// The prefixes used last. Thread safe.
using TruecaseMemo = TextMemo<TruecasePrefix>;

}  // namespace lmfusion
