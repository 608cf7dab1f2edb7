#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace lmfusion {

// Words as the Penn Treebank writes them ("don't" is "do" and "n't", `"` is "``" or "''"): what
// nltk 3.10.4 gives for word_tokenize(text, preserve_line=True) and for
// TreebankWordDetokenizer().detokenize(words). A text is one sentence. Thread safe.

// Throws TextError unless `text` is valid UTF-8.
std::vector<std::string> SplitTreebankWords(std::string_view text);

// `words` as SplitTreebankWords gives them, in any case.
std::string JoinTreebankWords(const std::vector<std::string>& words);

// Spaces between two parts of a text that splitting and joining treat alike whether together or
// one by one; see Note [Treebank boundaries] in treebank_boundary.cpp.
struct TreebankGap {
  size_t begin = std::string_view::npos;  // npos: there is none
  size_t end = std::string_view::npos;
  explicit operator bool() const { return begin != std::string_view::npos; }
};

// The first gap that begins at or after byte `from`, and the last one that begins at or before it.
TreebankGap NextTreebankGap(std::string_view text, size_t from);
TreebankGap LastTreebankGap(std::string_view text, size_t at);

}  // namespace lmfusion
