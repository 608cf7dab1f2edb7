#pragma once

#include <cstddef>
#include <string_view>

namespace lmfusion {

// Where in a cased text the candidate begins. Texts are valid UTF-8.

// The byte of `b` after as many code points as `a` has before byte `at`.
size_t SameCodePoint(std::string_view a, size_t at, std::string_view b);

size_t CountCodePoints(std::string_view text);
size_t CountWords(std::string_view text);  // words: what white space separates

// Where the last `words` words of `text`, with the spaces before them, begin.
size_t BeginOfLastWords(std::string_view text, size_t words);

}  // namespace lmfusion
