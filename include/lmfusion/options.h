#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lmfusion/casing.h"
#include "lmfusion/tokenizer.h"

namespace lmfusion {

// How a scorer computes; scores are the same in every mode.
enum class Mode {
  kTree,      // every distinct prefix once, whoever asks and whenever
  kGrouped,   // one prefill per distinct cased context and call, then one pass per word
  kUncached,  // every text on its own
};
Mode ModeByName(const std::string& name);  // "tree", "grouped", "uncached"; std::invalid_argument
const char* Name(Mode mode);

// Where a word ends.
enum class Boundary {
  kPlain,  // a word is its tokens
  kWord,   // a word is its tokens and the end of the word, see docs/boundaries.md
};
Boundary BoundaryByName(const std::string& name);  // "plain", "word"; std::invalid_argument
const char* Name(Boundary boundary);

// What stands between a context and a word, see join.h.
enum class Join {
  kAuto,   // what people write there
  kSpace,  // one space
  kNone,   // nothing
};
Join JoinByName(const std::string& name);  // "auto", "space", "none"; std::invalid_argument
const char* Name(Join join);

SpecialTokens SpecialTokensByName(const std::string& name);  // "text", "allow"
const char* Name(SpecialTokens special_tokens);

constexpr int64_t kAuto = -1;  // of an option that the scorer can set itself

// How a scorer scores: values by the names of options_fields.inc, which says what each is.
struct ScorerOptions {
#define LMFUSION_OPTION(type, name, initial, text) type name = initial;
#include "lmfusion/options_fields.inc"
#undef LMFUSION_OPTION

  std::shared_ptr<const Casing> casing_object;  // in place of `casing`, where given
  std::shared_ptr<const Tokenizer> tokenizer;   // in place of the bundle's, where given

  // Throws std::invalid_argument, naming the field, its value and what is allowed.
  void Validate() const;
  std::string ToString() const;  // weight=0.3, ...
};

// A line of the table.
struct OptionField {
  const char* name;
  const char* text;
};

// Calls visit(OptionField, member) for every field in order, where member is
// &ScorerOptions::weight and so on.
template <typename Visit>
void ForEachOption(Visit&& visit) {
#define LMFUSION_OPTION(type, name, initial, text) \
  visit(OptionField{#name, text}, &ScorerOptions::name);
#include "lmfusion/options_fields.inc"
#undef LMFUSION_OPTION
}

}  // namespace lmfusion
