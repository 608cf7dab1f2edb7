#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/casing/substitution.h"

#include <pcre2.h>

#include <stdexcept>

#include "lmfusion/errors.h"
#include "text/match_data.h"

namespace lmfusion {
namespace {

constexpr uint32_t kGroups = 5;  // more than any pattern has

PCRE2_SPTR Units(const char* text) { return reinterpret_cast<PCRE2_SPTR>(text); }

}  // namespace

struct Substitution::Code {
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  std::unique_ptr<pcre2_code, Free> pcre;
};

Substitution::Substitution(const char* pattern, const char* replacement)
    : replacement_(replacement) {
  int error = 0;
  PCRE2_SIZE at = 0;
  std::unique_ptr<pcre2_code, Code::Free> pcre(pcre2_compile(
      Units(pattern), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr));
  if (pcre == nullptr) throw std::logic_error(std::string("PCRE2 refuses the pattern ") + pattern);
  pcre2_jit_compile(pcre.get(), PCRE2_JIT_COMPLETE);  // without it, matching is only slower
  code_ = std::make_unique<const Code>(Code{std::move(pcre)});
}

Substitution::~Substitution() = default;
Substitution::Substitution(Substitution&&) noexcept = default;

void Substitution::Apply(std::string* text) const {
  thread_local const MatchData data(kGroups);
  uint32_t options = PCRE2_NO_UTF_CHECK;
  int result = pcre2_match(code_->pcre.get(), Units(text->data()), text->size(), 0, options,
                           data.get(), nullptr);
  if (result == PCRE2_ERROR_NOMATCH) return;
  options |= PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_OVERFLOW_LENGTH;
  std::string out(2 * text->size() + 16, '\0');
  for (int attempt = 0; attempt < 3; ++attempt) {
    PCRE2_SIZE size = out.size();
    result = pcre2_substitute(code_->pcre.get(), Units(text->data()), text->size(), 0, options,
                              data.get(), nullptr, Units(replacement_), PCRE2_ZERO_TERMINATED,
                              reinterpret_cast<PCRE2_UCHAR*>(out.data()), &size);
    if (result >= 0) {
      out.resize(size);
      *text = std::move(out);
      return;
    }
    if (result == PCRE2_ERROR_NOMEMORY) out.resize(size);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) options |= PCRE2_NO_JIT;
  }
  throw Error("a rule of the truecaser needs too many steps (PCRE2 error " +
              std::to_string(result) + ") for a text of " + std::to_string(text->size()) +
              " bytes: give a shorter text");
}

}  // namespace lmfusion
