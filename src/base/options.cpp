#include "lmfusion/options.h"

#include <cmath>
#include <sstream>
#include <stdexcept>

#include "base/one_of.h"

namespace lmfusion {
namespace {

constexpr NamedValue<Mode> kModes[] = {
    {"tree", Mode::kTree}, {"grouped", Mode::kGrouped}, {"uncached", Mode::kUncached}};
constexpr NamedValue<Boundary> kBoundaries[] = {{"plain", Boundary::kPlain},
                                                {"word", Boundary::kWord}};
constexpr NamedValue<Join> kJoins[] = {
    {"auto", Join::kAuto}, {"space", Join::kSpace}, {"none", Join::kNone}};
constexpr NamedValue<SpecialTokens> kSpecialTokens[] = {{"text", SpecialTokens::kText},
                                                        {"allow", SpecialTokens::kAllow}};

void Require(bool holds, const std::string& what, const std::string& value,
             const std::string& expectation) {
  if (!holds) {
    throw std::invalid_argument(what + " = " + value + "; " + expectation + " expected");
  }
}

void Write(double value, std::ostream& out) { out << value; }
void Write(const std::string& value, std::ostream& out) { out << '"' << value << '"'; }
void Write(Mode value, std::ostream& out) { out << '"' << Name(value) << '"'; }
void Write(Boundary value, std::ostream& out) { out << '"' << Name(value) << '"'; }
void Write(Join value, std::ostream& out) { out << '"' << Name(value) << '"'; }
void Write(SpecialTokens value, std::ostream& out) { out << '"' << Name(value) << '"'; }
void Write(int64_t value, std::ostream& out) {
  if (value == kAuto) {
    out << "\"auto\"";
  } else {
    out << value;
  }
}

}  // namespace

Mode ModeByName(const std::string& name) { return OneOf("mode", name, kModes); }
const char* Name(Mode mode) { return NameOf(mode, kModes); }
Boundary BoundaryByName(const std::string& name) { return OneOf("boundary", name, kBoundaries); }
const char* Name(Boundary boundary) { return NameOf(boundary, kBoundaries); }
Join JoinByName(const std::string& name) { return OneOf("join", name, kJoins); }
const char* Name(Join join) { return NameOf(join, kJoins); }
SpecialTokens SpecialTokensByName(const std::string& name) {
  return OneOf("special_tokens", name, kSpecialTokens);
}
const char* Name(SpecialTokens special_tokens) { return NameOf(special_tokens, kSpecialTokens); }

void ScorerOptions::Validate() const {
  Require(std::isfinite(weight), "weight", std::to_string(weight), "a finite number");
  Require(std::isfinite(word_insertion_bonus), "word_insertion_bonus",
          std::to_string(word_insertion_bonus), "a finite number");
  Require(homophone_aggregation == "max" || homophone_aggregation == "logsumexp",
          "homophone_aggregation", "\"" + homophone_aggregation + "\"", "\"max\" or \"logsumexp\"");
  Require(max_context_length >= 1, "max_context_length", std::to_string(max_context_length),
          "at least 1 token");
  Require(max_batch_tokens >= 1, "max_batch_tokens", std::to_string(max_batch_tokens),
          "at least 1 token");
  Require(selfcheck_every >= 0, "selfcheck_every", std::to_string(selfcheck_every),
          "a number of calls, or 0");
  Require(kv_cache_bytes == kAuto || kv_cache_bytes > 0, "kv_cache_bytes",
          std::to_string(kv_cache_bytes), "a number of bytes, or -1 for \"auto\"");
}

std::string ScorerOptions::ToString() const {
  std::ostringstream out;
  const char* separator = "";
  ForEachOption([&](const OptionField& field, auto member) {
    out << separator << field.name << "=";
    const bool is_object = casing_object != nullptr && std::string("casing") == field.name;
    if (is_object) {
      out << "<a Casing>";
    } else {
      Write(this->*member, out);
    }
    separator = ", ";
  });
  if (tokenizer != nullptr) out << ", tokenizer=<a Tokenizer>";
  return out.str();
}

}  // namespace lmfusion
