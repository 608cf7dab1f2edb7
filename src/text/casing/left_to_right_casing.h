#pragma once

#include <string>
#include <string_view>

#include "lmfusion/casing.h"

namespace lmfusion {

// A casing under which a context reads the same whatever follows it, so that the candidates of
// one context need no copy of it each. Thread safe.
class LeftToRightCasing : public Casing {
 public:
  // The cased context.
  virtual std::string Context(std::string_view context) const = 0;
  // Appends `word`, joined and cased, to `text`, which holds Context(context).
  virtual void Append(std::string_view word, std::string* text) const = 0;

  // `context` and `word` are valid UTF-8 in the two above; here it is checked.
  CasedText Apply(std::string_view context, std::string_view word) const final;
};

}  // namespace lmfusion
