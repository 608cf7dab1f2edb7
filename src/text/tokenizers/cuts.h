#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lmfusion {

// Note [Cuts]
// A cut is only ever made before a single space that stands between two characters of a kind that
// is simple in every respect (IsCutNeighbour): letters and common punctuation, which normalisation
// neither joins with a space nor turns into one. (Digits are often split on their own.) Whether
// such places are cuts at all is a property of a tokenizer, found once when it is loaded:
//   - no added token reaches across such a space (AddedTokenMatcher::AllowsCuts);
//   - no normaliser does (Normalizer::AllowsCuts);
//   - the text is split there by a pattern no match of which has a space after such a character
//     (SplitPattern::AllowsCuts), or no token that merges can give has a space mark after another
//     character (Bpe::DividesBefore).
// LastCut then looks at a few bytes around each space, going back from where it is asked.

bool IsCutNeighbour(char32_t c);

// Every character for which IsCutNeighbour holds, ascending.
const std::u32string& CutNeighbours();

// Whether a space stands at `at`, between two cut neighbours.
bool IsSimpleSpace(std::string_view text, size_t at);

// The largest c, 0 < c <= at, where a space stands between two cut neighbours; 0: none.
size_t LastSimpleSpace(std::string_view text, size_t at);

}  // namespace lmfusion
