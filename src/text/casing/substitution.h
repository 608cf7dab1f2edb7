#pragma once

#include <memory>
#include <string>

namespace lmfusion {

// One substitution of a pattern, as Python's re.sub: every match from left to right, none
// overlapping another. Immutable and thread safe.
class Substitution {
 public:
  // `pattern` as PCRE2 reads it (UTF-8, letters and digits of all scripts), matching no empty text;
  // in `replacement`, $0 is the match and $1 its first group. Throws std::logic_error where PCRE2
  // refuses the pattern.
  Substitution(const char* pattern, const char* replacement);
  ~Substitution();
  Substitution(Substitution&&) noexcept;

  // Substitutes in `text`, which is valid UTF-8.
  void Apply(std::string* text) const;

 private:
  struct Code;
  std::unique_ptr<const Code> code_;
  const char* replacement_;
};

}  // namespace lmfusion
