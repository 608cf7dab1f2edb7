#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lmfusion {

// Context and candidate joined and cased as one text.
struct CasedText {
  std::string text;          // UTF-8
  size_t context_bytes = 0;  // text[0, context_bytes) is the context, the rest is scored
};

class LeftToRightCasing;

// How lower-case decoder text becomes the text the language model reads. Thread safe.
class Casing {
 public:
  virtual ~Casing() = default;

  // Cases `context` and `word` as one text, word following context as it is: what joins them (see
  // join.h) is at the beginning of `word` already. A whole text is cased as Apply("", text). Throws
  // TextError where either is not valid UTF-8.
  virtual CasedText Apply(std::string_view context, std::string_view word) const = 0;

  // The forms of one candidate, distinct and at least one: its log-probability is the logsumexp
  // of theirs. Nearly every casing has only Apply(context, word).
  virtual std::vector<CasedText> Alternatives(std::string_view context,
                                              std::string_view word) const;

  // This casing, where a context reads the same whatever follows it; else null.
  virtual const LeftToRightCasing* AsLeftToRight() const { return nullptr; }
};

// A casing under which a context reads the same whatever follows it: a context is cased once for
// all its candidates, whatever its length. Derive from it where that holds. Thread safe.
class LeftToRightCasing : public Casing {
 public:
  // The cased context. Both get valid UTF-8 and give it.
  virtual std::string Context(std::string_view context) const = 0;
  // Appends `word`, cased, to `text`, which holds Context(context) and stays before it as it is.
  virtual void Append(std::string_view word, std::string* text) const = 0;

  CasedText Apply(std::string_view context, std::string_view word) const final;
  const LeftToRightCasing* AsLeftToRight() const final { return this; }
};

// "none": as given. "sentence": the first letter, and the words i, i'm, i'll, i'd, i've.
// "variants": the candidate as given, capitalised and in capitals, after the context as given.
// docs/casing.md has the details. Throws std::invalid_argument for any other name, listing those
// there are.
std::shared_ptr<const Casing> CasingByName(std::string_view name);

// A function from a whole text to the cased text. The candidate begins in the result where it did
// in the text: after as many characters, or, where their number changes, as many that are no white
// space, or as many letters and digits; else it is taken to be the last words of the result, as
// many as `word` has (split at spaces). Throws std::invalid_argument where that would leave no
// context.
std::shared_ptr<const Casing> CasingFromFunction(std::function<std::string(const std::string&)> f);

}  // namespace lmfusion
