#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/tokenizers/split_pattern.h"

#include <pcre2.h>

#include <algorithm>
#include <string>

#include "lmfusion/errors.h"
#include "text/match_data.h"
#include "text/tokenizers/cuts.h"
#include "text/tokenizers/pattern_syntax.h"
#include "text/unicode/utf8.h"

namespace lmfusion {

struct SplitPattern::Code {
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  std::unique_ptr<pcre2_code, Free> pcre;

  explicit Code(const std::string& pattern, std::string_view written) {
    int error = 0;
    PCRE2_SIZE at = 0;
    pcre.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &at, nullptr));
    if (pcre == nullptr) {
      PCRE2_UCHAR message[256];
      pcre2_get_error_message(error, message, sizeof(message));
      throw TokenizerError("tokenizer.json: the pattern \"" + std::string(written) +
                           "\" cannot be used: " + reinterpret_cast<const char*>(message) +
                           " (as PCRE2 writes it: \"" + pattern + "\", byte " + std::to_string(at) +
                           ")");
    }
    pcre2_jit_compile(pcre.get(), PCRE2_JIT_COMPLETE);  // without it, matching is only slower
  }

  bool Find(std::string_view text, size_t from, size_t* begin, size_t* end) const;

  // Or might, between any two characters.
  bool MatchesEmpty() const {
    uint32_t matches = 0;
    pcre2_pattern_info(pcre.get(), PCRE2_INFO_MATCHEMPTY, &matches);
    return matches != 0;
  }
};

bool SplitPattern::Code::Find(std::string_view text, size_t from, size_t* begin,
                              size_t* end) const {
  thread_local const MatchData data(1);
  const auto match = [&](uint32_t options) {
    return pcre2_match(pcre.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       PCRE2_NO_UTF_CHECK | options, data.get(), nullptr);
  };
  int result = match(0);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    throw Error("a tokenizer's pattern needs too much memory or too many steps (PCRE2 error " +
                std::to_string(result) + ") for a text of " + std::to_string(text.size()) +
                " bytes: give a shorter text");
  }
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data.get());
  *begin = offsets[0];
  *end = offsets[1];
  return true;
}

namespace {

constexpr size_t kMaxPatternBytes = 4096;

struct CharacterTest {
  bool space, other;
};

// Whether a pattern of one character matches a space, and any cut neighbour.
template <typename Code>
CharacterTest Test(const std::string& pattern) {
  static const std::string neighbours = EncodeUtf8(CutNeighbours());
  const Code code(pattern, pattern);
  size_t begin, end;
  return {code.Find(" ", 0, &begin, &end), code.Find(neighbours, 0, &begin, &end)};
}

// Whether no match has a space after a cut neighbour, and none depends on what is there.
template <typename Code>
bool Respects(const std::vector<PatternSyntax::Atom>& alternative) {
  bool other_before = false;
  for (const PatternSyntax::Atom& atom : alternative) {
    if (atom.before_space_end) {
      if (other_before) return false;
      continue;
    }
    bool other = false;
    for (const std::string& pattern : atom.characters) {
      const CharacterTest test = Test<Code>(pattern);
      if (test.space && (other_before || atom.group || (atom.repeats && test.other))) return false;
      other = other || test.other;
    }
    other_before = other_before || other || atom.group;
  }
  return true;
}

}  // namespace

SplitPattern::SplitPattern(std::string_view oniguruma) {
  if (oniguruma.size() > kMaxPatternBytes) {
    throw TokenizerError("tokenizer.json: a pattern is longer than " +
                         std::to_string(kMaxPatternBytes) + " bytes");
  }
  const PatternSyntax syntax = ReadPattern(oniguruma);
  code_ = std::make_unique<Code>(syntax.pcre, oniguruma);
  if (code_->MatchesEmpty()) {
    throw TokenizerError("tokenizer.json: the pattern \"" + std::string(oniguruma) +
                         "\" matches empty text, which is not implemented");
  }
  respects_cuts_ = syntax.local && std::all_of(syntax.alternatives.begin(),
                                               syntax.alternatives.end(), Respects<Code>);
  splits_at_cuts_ = respects_cuts_;
  size_t begin = 0, end = 0;
  for (const char32_t c : CutNeighbours()) {
    if (!splits_at_cuts_) break;
    const std::string text = EncodeUtf8(std::u32string{c, U' ', c});
    const size_t space = (text.size() - 1) / 2;
    splits_at_cuts_ = Find(text, 0, &begin, &end) && begin == 0 && end == space &&
                      Find(text, space, &begin, &end) && begin == space;
  }
}

SplitPattern::~SplitPattern() = default;
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;

bool SplitPattern::Find(std::string_view text, size_t from, size_t* begin, size_t* end) const {
  return code_->Find(text, from, begin, end);
}

void SplitPattern::Split(std::string_view text, SplitBehavior behavior, bool invert,
                         std::vector<std::string_view>* parts) const {
  size_t open = 0;            // where the part that is not finished begins
  bool last_matches = false;  // whether the part before the next one is a match
  const auto finish = [&](size_t end) {
    if (open < end) parts->push_back(text.substr(open, end - open));
    open = end;
  };
  const auto add = [&](size_t begin, size_t end, bool matches) {
    if (begin == end) return;
    switch (behavior) {
      case SplitBehavior::kIsolated:
        finish(begin);
        finish(end);
        break;
      case SplitBehavior::kRemoved:
        finish(begin);
        if (matches) open = end;
        break;
      case SplitBehavior::kMergedWithPrevious:
        if (!matches) finish(begin);
        if (matches) finish(end);
        break;
      case SplitBehavior::kMergedWithNext:
        if (matches || !last_matches) finish(begin);
        break;
      case SplitBehavior::kContiguous:
        if (matches != last_matches) finish(begin);
        break;
    }
    last_matches = matches;
  };
  size_t at = 0, begin = 0, end = 0;
  while (at < text.size() && Find(text, at, &begin, &end)) {
    add(at, begin, invert);
    add(begin, end, !invert);
    at = end;
  }
  add(at, text.size(), invert);
  finish(text.size());
}

}  // namespace lmfusion
