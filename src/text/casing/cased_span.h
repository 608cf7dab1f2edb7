#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace lmfusion {

// Where in a cased text the candidate begins. Texts are valid UTF-8.

// The byte of `b` after as many code points as `a` has before byte `at`.
size_t SameCodePoint(std::string_view a, size_t at, std::string_view b);

// Where the characters after byte `at` of `given` begin in `cased`, by the first of these of which
// both have as many: all characters, those that are no white space, letters and digits. Otherwise
// where the last `words` words begin; nothing where that leaves no word for the context.
std::optional<size_t> SameCharacters(std::string_view given, size_t at, std::string_view cased,
                                     size_t words);

size_t CountCodePoints(std::string_view text);
size_t CountWords(std::string_view text);  // words: what white space separates

// Where the last `words` words of `text`, with the spaces before them, begin.
size_t BeginOfLastWords(std::string_view text, size_t words);

}  // namespace lmfusion
