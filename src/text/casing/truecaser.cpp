#include "lmfusion/truecaser.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "text/casing/cased_span.h"
#include "text/casing/treebank.h"
#include "text/casing/truecase_memo.h"
#include "text/casing/truecase_model.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

// Note [Incremental truecasing]
// A word's case depends on the word before it as written, and on the next word in lower case. The
// text is cut at treebank boundaries into stretchs, mostly single words, which can be split and
// joined one by one (Note [Treebank boundaries]). So after a prefix that ends at a boundary all is
// settled but the last stretch, of which only the last word's case waits. The state after the last
// boundary of a context is remembered (TruecasePrefix): for a further candidate there remain the
// context's last word and the candidate's own. An unknown context begins at the longest remembered
// prefix that ends at one of its last boundaries.

namespace lmfusion {
namespace {

constexpr size_t kMemoBytes = 32 << 20;
constexpr size_t kProbes = 64;     // boundaries at which a remembered prefix is looked for
constexpr size_t kRemembered = 8;  // last new boundaries of a context that are remembered

char32_t Folded(char32_t c) {
  const char32_t lower = SimpleLower(c);
  return lower == 0x3c2 ? 0x3c3 : lower;  // final sigma
}

bool SameLetters(const std::u32string& a, const std::u32string& b) {
  const auto same = [](char32_t x, char32_t y) { return Folded(x) == Folded(y); };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
}

// `source` with the letters of its words in the case of `cased`. A word where that would change
// more than the case of single letters stays as it is.
std::string CaseInPlace(std::string_view source, const std::vector<std::string>& words,
                        const std::vector<std::string>& cased) {
  std::u32string out = DecodeUtf8(source);
  size_t at = 0;
  for (size_t w = 0; w < words.size(); ++w) {
    const std::u32string given = DecodeUtf8(words[w]), wanted = DecodeUtf8(cased[w]);
    const bool same_letters = SameLetters(given, wanted);
    for (size_t i = 0; i < given.size(); ++i) {
      while (at < out.size() && IsPythonSpace(out[at])) ++at;
      if (at == out.size()) break;
      if (out[at] == U'"') {
        ++i;  // the splitter writes `` or '' for it
      } else if (same_letters) {
        out[at] = wanted[i];
      }
      ++at;
    }
  }
  return EncodeUtf8(out);
}

// Cases one text stretch by stretch.
class Pass {
 public:
  // `from` is the state after a prefix of `text`, or empty. The byte `context_size` of `text` is
  // followed into the result.
  Pass(const TruecaseModel& model, bool compat, std::string_view text, size_t context_size,
       TruecasePrefix from)
      : model_(model),
        compat_(compat),
        text_(text),
        context_size_(context_size),
        state_(std::move(from)),
        stretch_end_(state_.source.size()) {}

  // The stretch text[begin, end), which follows the last one after a gap.
  void Append(size_t begin, size_t end) {
    std::vector<std::string> words = SplitTreebankWords(text_.substr(begin, end - begin));
    if (!state_.words.empty()) {
      Settle(&words.front());
      const size_t gap = state_.settled.size();
      state_.settled += compat_ ? " " : text_.substr(stretch_end_, begin - stretch_end_);
      if (context_size_ > stretch_end_ && context_size_ < begin) {
        context_bytes_ = gap + context_size_ - stretch_end_;
      }
      state_.previous = std::move(state_.cased.back());
    }
    state_.stretch_begin = begin;
    stretch_end_ = end;
    state_.words = std::move(words);
    state_.cased.clear();
    for (size_t i = 0; i + 1 < state_.words.size(); ++i) Decide(i, &state_.words[i + 1]);
  }

  // The state after text[0, end of the last stretch).
  std::shared_ptr<const TruecasePrefix> State() const {
    auto state = std::make_shared<TruecasePrefix>(state_);
    state->source = text_.substr(0, stretch_end_);
    return state;
  }

  CasedText Finish() {
    Settle(nullptr);
    return {std::move(state_.settled), context_bytes_};
  }

  uint64_t words_decided() const { return words_decided_; }

 private:
  // The case of word i of the stretch, before `next`.
  void Decide(size_t i, const std::string* next) {
    ++words_decided_;
    const std::string lower = PythonLower(state_.words[i]);
    const std::string next_lower = next == nullptr ? "" : PythonLower(*next);
    const std::string_view previous = i == 0 ? state_.previous : state_.cased[i - 1];
    const std::string_view following = next_lower;
    const bool first = previous.empty();
    const std::optional<std::string_view> form =
        model_.Choose(lower, first ? nullptr : &previous, next == nullptr ? nullptr : &following);
    std::string cased = !form   ? PythonTitle(lower)
                        : first ? PythonCapitalize(*form)
                                : std::string(*form);
    state_.cased.push_back(std::move(cased));
  }

  // Decides the last word of the stretch and writes the stretch.
  void Settle(const std::string* next) {
    if (!state_.words.empty()) Decide(state_.words.size() - 1, next);
    const std::string_view source =
        text_.substr(state_.stretch_begin, stretch_end_ - state_.stretch_begin);
    const std::string out =
        compat_ ? JoinTreebankWords(state_.cased) : CaseInPlace(source, state_.words, state_.cased);
    if (context_size_ >= state_.stretch_begin && context_size_ <= stretch_end_) {
      context_bytes_ =
          state_.settled.size() + SameCodePoint(source, context_size_ - state_.stretch_begin, out);
    }
    state_.settled += out;
  }

  const TruecaseModel& model_;
  const bool compat_;
  const std::string_view text_;
  const size_t context_size_;
  TruecasePrefix state_;
  size_t stretch_end_;  // of the last stretch in text_
  size_t context_bytes_ = 0;
  uint64_t words_decided_ = 0;
};

class MappedTruecaser final : public Truecaser {
 public:
  MappedTruecaser(std::shared_ptr<const TruecaseModel> model, bool compat)
      : model_(std::move(model)), compat_(compat), memo_(kMemoBytes) {}

  CasedText Apply(std::string_view context, std::string_view word) const override {
    std::string text(context);
    text += word;

    CasedText result;
    try {
      result = Case(text, context.size());
    } catch (const TextError&) {
      DecodeUtf8(text);  // the same mistake, its place counted in the whole text
      throw;
    }
    if (context.empty()) {
      result.context_bytes = 0;
    } else if (compat_) {
      const bool is_apart = word.empty() || IsPythonSpace(CharacterAt(word, 0).value) ||
                            IsPythonSpace(CharacterBefore(context, context.size()).value);
      result.context_bytes =
          is_apart ? BeginOfLastWords(result.text, CountWords(word))
                   : SameCharacters(text, context.size(), result.text, CountWords(word))
                         // One word, which has become longer, as "ß" does in capitals.
                         .value_or(SameCodePoint(text, context.size(), result.text));
    }
    return result;
  }

  uint64_t WordsDecided() const override { return words_decided_; }

 private:
  struct Start {
    std::shared_ptr<const TruecasePrefix> prefix;  // null: begin with the text
    size_t remember_from = 1, remember_to = 0;     // boundaries in this range are worth remembering
  };

  CasedText Case(std::string_view text, size_t context_size) const {
    const Start start = FindStart(text, context_size == 0 ? text.size() : context_size);
    Pass pass(*model_, compat_, text, context_size,
              start.prefix ? *start.prefix : TruecasePrefix());
    size_t begin = start.prefix ? text.find_first_not_of(' ', start.prefix->source.size()) : 0;
    while (true) {
      const TreebankGap gap = NextTreebankGap(text, begin);
      pass.Append(begin, gap ? gap.begin : text.size());
      if (!gap) break;
      if (gap.begin >= start.remember_from && gap.begin <= start.remember_to) {
        memo_.Add(pass.State());
      }
      begin = gap.end;
    }
    CasedText result = pass.Finish();
    words_decided_ += pass.words_decided();
    return result;
  }

  // The longest remembered prefix that ends at a boundary not after byte `at`.
  Start FindStart(std::string_view text, size_t at) const {
    Start start;
    TreebankGap gap = LastTreebankGap(text, at);
    for (size_t probe = 0; gap && probe < kProbes; ++probe) {
      start.prefix = memo_.Find(text.substr(0, gap.begin));
      if (start.prefix != nullptr) break;
      if (probe == 0) start.remember_to = gap.begin;
      if (probe < kRemembered) start.remember_from = gap.begin;
      gap = LastTreebankGap(text, gap.begin - 1);  // a letter or digit stands before a gap
    }
    return start;
  }

  const std::shared_ptr<const TruecaseModel> model_;
  const bool compat_;
  mutable TruecaseMemo memo_;
  mutable std::atomic<uint64_t> words_decided_{0};
};

}  // namespace

std::shared_ptr<const Truecaser> TruecaserFromFile(const std::string& path, bool compat) {
  return std::make_shared<const MappedTruecaser>(TruecaseModel::FromFile(path), compat);
}

std::shared_ptr<const Truecaser> TruecaserFromBytes(std::string bytes, bool compat) {
  return std::make_shared<const MappedTruecaser>(TruecaseModel::FromBytes(std::move(bytes)),
                                                 compat);
}

}  // namespace lmfusion
