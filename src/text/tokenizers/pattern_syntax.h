#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lmfusion {

// A pattern of a tokenizer.json, which is written for Oniguruma, as PCRE2 writes it, and what of
// its structure tells where text may be cut.
struct PatternSyntax {
  struct Atom {
    std::vector<std::string> characters;  // patterns of one character each; several for a group
    bool repeats = false;                 // more than once
    bool group = false;
    bool before_space_end = false;  // no characters: `(?!\S)` or `$`
  };
  std::string pcre;
  std::vector<std::vector<Atom>> alternatives;  // of the top level
  bool local = true;  // nothing looks behind, or ahead other than by before_space_end
};

// Throws TokenizerError where a construct is not known to mean the same in both.
PatternSyntax ReadPattern(std::string_view oniguruma);

// The pattern that matches `text` itself.
std::string QuotePattern(std::string_view text);

}  // namespace lmfusion
