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

  // Joins `context` and `word` (see NeedsSpace) and cases the whole. A whole text is cased as
  // Apply("", text). Throws TextError where either is not valid UTF-8.
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
  // Appends `word`, joined and cased, to `text`, which holds Context(context) and stays before it
  // as it is.
  virtual void Append(std::string_view word, std::string* text) const = 0;

  CasedText Apply(std::string_view context, std::string_view word) const final;
  const LeftToRightCasing* AsLeftToRight() const final { return this; }
};

// "none": as given. "sentence": the first letter, and the words i, i'm, i'll, i'd, i've.
// "variants": the candidate as given, capitalised and in capitals, after the context as given.
// docs/casing.md has the details. Throws std::invalid_argument for any other name, listing those
// there are.
std::shared_ptr<const Casing> CasingByName(std::string_view name);

// A function from a whole text to the cased text. Where it changes the number of code points, the
// candidate is taken to be the last words of the result, as many as `word` has (split at spaces).
std::shared_ptr<const Casing> CasingFromFunction(std::function<std::string(const std::string&)> f);

// The join rule: no space where the context is empty or ends in a space, or the word is empty or
// starts with one; otherwise one space.
bool NeedsSpace(std::string_view context, std::string_view word);

}  // namespace lmfusion
