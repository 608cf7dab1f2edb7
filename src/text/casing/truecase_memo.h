#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "text/text_memo.h"

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

// The prefixes used last. Thread safe.
using TruecaseMemo = TextMemo<TruecasePrefix>;

}  // namespace lmfusion
