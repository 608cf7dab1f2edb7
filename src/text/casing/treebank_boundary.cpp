#include <algorithm>

#include "text/casing/treebank.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

// Note [Treebank boundaries]
// Write a text as A + spaces + B, where A ends and B begins with a letter or an ASCII digit
// (U+0130, U+0131 and U+017F, which fold to i and s, do not count). Unless one of the six pairs
// below meets there, Split(text) = Split(A) + Split(B), and for words cased in any way
// Join(words) = Join(words of A) + " " + Join(words of B). Rule by rule:
//  - Every rule that can match a space also matches, directly beside it, a quote or punctuation
//    mark, or is one of the contractions below. Beside the gap there are only letters and digits.
//  - A match may take the gap's first space as its end (the clitics: "'s "). What it writes ends
//    in a space again, and the next match could only want that space together with a mark.
//  - Rules for the start of a text want a quote there, B has none; rules for its end want marks or
//    spaces there, A has none. Rules that look at one more character see a space or the end of
//    the text, which are alike for all of them beside a letter or digit.
//  - Splitting and joining never delete a letter or digit, and case changes of a letter begin and
//    end with a letter or a mark above one: the argument holds before and after each rule.
//  - Joining glues two words of letters only where the splitter would have cut them: can|not,
//    gim|me, lem|me, gon|na, wan|na, got|ta, 't|is, 't|was, and any word with n't.
//    IsGlued is true for these and, to stay simple, for a few more. Then the gap is no boundary.

namespace lmfusion {
namespace {

bool IsPlain(char32_t c) {
  if (c == kNoCharacter) return false;
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  return IsLetter(c) && c != 0x130 && c != 0x131 && c != 0x17f;
}

bool EqualFolded(std::string_view text, std::string_view lower) {
  const auto equal = [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; };
  return text.size() == lower.size() && std::equal(text.begin(), text.end(), lower.begin(), equal);
}

bool IsGlued(std::string_view before, std::string_view after) {
  const auto ends = [before](std::string_view end) {
    return before.size() >= end.size() &&
           EqualFolded(before.substr(before.size() - end.size()), end);
  };
  const auto begins = [after](std::string_view begin) {
    return EqualFolded(after.substr(0, begin.size()), begin);
  };
  return (begins("not") && ends("can")) || (begins("me") && ends("m")) ||
         (begins("na") && ends("n")) || (begins("ta") && ends("got")) || begins("n't") ||
         ends("'t");
}

TreebankGap GapAround(std::string_view text, size_t space) {
  size_t begin = space, end = space + 1;
  while (begin > 0 && text[begin - 1] == ' ') --begin;
  while (end < text.size() && text[end] == ' ') ++end;
  return {begin, end};
}

bool IsBoundary(std::string_view text, const TreebankGap& gap) {
  const std::string_view before = text.substr(0, gap.begin), after = text.substr(gap.end);
  return IsPlain(CharacterBefore(text, gap.begin).value) &&
         IsPlain(CharacterAt(text, gap.end).value) && !IsGlued(before, after);
}

}  // namespace

TreebankGap NextTreebankGap(std::string_view text, size_t from) {
  for (size_t space = text.find(' ', from); space != std::string_view::npos;) {
    const TreebankGap gap = GapAround(text, space);
    if (gap.begin >= from && IsBoundary(text, gap)) return gap;
    space = text.find(' ', gap.end);
  }
  return {};
}

TreebankGap LastTreebankGap(std::string_view text, size_t at) {
  for (size_t space = text.rfind(' ', at); space != std::string_view::npos;) {
    const TreebankGap gap = GapAround(text, space);
    if (IsBoundary(text, gap)) return gap;
    space = gap.begin == 0 ? std::string_view::npos : text.rfind(' ', gap.begin - 1);
  }
  return {};
}

}  // namespace lmfusion
