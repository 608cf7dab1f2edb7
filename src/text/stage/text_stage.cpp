#include "text/stage/text_stage.h"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>

#include "lmfusion/errors.h"
#include "lmfusion/join.h"
#include "text/stage/path_writer.h"
#include "text/stage/text_tokens.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

// Note [Scored span]
// Every score is a difference of two texts' log-probabilities, L(text) - L(context), where the
// context is text[0, context_bytes) and L sums over all tokens of a text (and, under the boundary
// policy "word", adds the end of its last word). Tokens that both begin with cancel, so the path of
// the text is scored after the longest common prefix of both; what is left of the context's tokens
// is a second path of sign -1. So the scores of a text's words sum to the text's, wherever it is
// split and whatever merges happen at the joins. docs/boundaries.md has an example.

namespace lmfusion {
namespace {

struct Where {
  const char* list;
  size_t i;
  const char* inner = nullptr;  // a second index, or a second list and its index
  size_t j = 0;

  std::string operator()() const {
    std::string text = std::string(list) + "[" + std::to_string(i) + "]";
    if (inner != nullptr) text += std::string(inner) + "[" + std::to_string(j) + "]";
    return text;
  }
};

void CheckUtf8At(std::string_view text, const Where& where) {
  try {
    CheckUtf8(text);
  } catch (const TextError& error) {
    throw TextError(where() + ": " + error.what());
  }
}

bool EndsInSpace(std::string_view text) {
  return IsPythonSpace(CharacterBefore(text, text.size()).value);
}

bool HasSpace(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Character c = CharacterAt(text, at);
    if (IsPythonSpace(c.value)) return true;
    at += c.bytes;
  }
  return false;
}

// Positions of the model that a history leaves to a candidate.
constexpr int64_t kCandidatePositions = 16;

// A word with what joins it to its context.
std::string Separated(const JoinAfter& joins, const std::string& word) {
  return std::string(joins.Separator(word)) + word;
}

}  // namespace

struct TextStage::Impl {
  class ContextPaths;

  Impl(std::shared_ptr<const Tokenizer> tokenizer_given, std::shared_ptr<const Casing> casing_given,
       TextStageOptions options_given)
      : casing(std::move(casing_given)),
        left_to_right(casing->AsLeftToRight()),
        options(options_given),
        tokens(std::move(tokenizer_given), options.start_token) {}

  // Of the model, for a history and the context after it.
  int64_t Positions() const { return options.max_path_length - 1 - kCandidatePositions; }

  PathLimits limits(const TextBefore& before) const {
    int64_t context = options.max_context_length;
    if (options.max_path_length > 0 && !before.empty()) {
      context = std::max<int64_t>(1, std::min(context, Positions() - before.tokens));
    }
    return {options.start_token >= 0, before.tokens, context, options.max_path_length};
  }

  // Checks what a casing made of a candidate: text[begin, end), where text[0, checked) is known to
  // be UTF-8.
  static void CheckCased(std::string_view text, size_t begin, size_t checked, const Where& where) {
    if (begin > text.size() || (begin < text.size() && (text[begin] & 0xc0) == 0x80)) {
      throw std::invalid_argument(where() + ": the casing put the candidate at byte " +
                                  std::to_string(begin) + " of " + std::to_string(text.size()) +
                                  ", which begins no character");
    }
    CheckUtf8At(text.substr(checked), where);
  }

  TokenPaths Continuations(const std::vector<std::string>& contexts,
                           const std::vector<std::vector<std::string>>& candidate_words, Join join,
                           const TextBefore& before, TextCall* call) const;
  // The candidates of contexts[i] under a casing that reads a context alike before any word, and
  // under any casing.
  void SameContext(const std::string& context, const std::vector<std::string>& words, size_t i,
                   Join join, const TextBefore& before, TokenPaths* paths, TextCall* call) const;
  void AnyContext(const std::string& context, const std::vector<std::string>& words, size_t i,
                  Join join, const TextBefore& before, TokenPaths* paths, TextCall* call) const;

  std::vector<CasedText> Forms(const std::string& context, const std::string& word,
                               const Where& where) const {
    try {
      return casing->Alternatives(context, word);
    } catch (const TextError& error) {
      throw TextError(where() + ": " + error.what());
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(where() + ": " + error.what());
    }
  }

  // Whether L(text) has an end of a word.
  bool EndsWord(std::string_view text) const {
    return options.boundary == Boundary::kWord && !text.empty() && !EndsInSpace(text);
  }

  const std::shared_ptr<const Casing> casing;
  const LeftToRightCasing* const left_to_right;  // `casing` where it is one; else null
  const TextStageOptions options;
  const TextTokens tokens;
};

// One cased context: writes the paths of the texts that extend it. Not thread safe.
class TextStage::Impl::ContextPaths {
 public:
  ContextPaths(const Impl& stage, const TextBefore& before, std::string_view context,
               TokenPaths* paths, TextCall* call)
      : stage_(stage),
        before_(before),
        call_(call),
        separator_(context.empty() ? "" : before.SeparatorTo(context)),
        context_is_empty_(context.empty()),
        separator_may_change_(!before.empty() && !HasSpace(context)),
        context_(stage.tokens.Find(Behind(separator_, context), call)),
        ends_word_(stage.EndsWord(context_->text())),
        writer_(context_->tokens, stage.limits(before), paths) {}

  bool truncated() const { return writer_.truncated(); }

  // log p(text) - log p(context); `text` begins with the context. With the text's end where `eos`.
  // Each joins what stands before by its own first word, so a candidate that makes another word of
  // the context's first one may change what is before that.
  void Extended(std::string_view given, const Where& where, bool eos = false) {
    const std::string_view separator =
        separator_may_change_ ? before_.SeparatorTo(given) : separator_;
    const std::string joined = before_.empty() ? "" : Behind(separator, given);
    const std::string_view text = before_.empty() ? given : std::string_view(joined);
    const size_t size = context_->text().size();
    const bool extends_context = context_is_empty_ || separator == separator_;
    const size_t cut = stage_.tokens.LastCut(text, extends_context ? size : before_.text.size());
    std::vector<int32_t> tail = stage_.tokens.EncodeFrom(text, cut, call_);
    size_t shared = writer_.context_size();
    if (cut < size) shared = Shared(text.substr(0, cut), &tail);
    if (eos) tail.push_back(stage_.options.end_token);
    Write({shared, std::move(tail), shared, 1, stage_.EndsWord(text) && !eos}, where);
    if (shared < writer_.context_size() || ends_word_) {
      Write({writer_.context_size(), {}, shared, -1, ends_word_}, where);
    }
  }

  // log p(the text ends | context).
  void Ended(const Where& where) {
    const size_t size = writer_.context_size();
    Write({size, {stage_.options.end_token}, size, 1, false}, where);
    if (ends_word_) Write({size, {}, size, -1, true}, where);
  }

  // log p(context), or log p(context and the end of the text).
  void Whole(bool eos, const Where& where) {
    std::vector<int32_t> tail;
    if (eos) tail.push_back(stage_.options.end_token);
    Write({writer_.context_size(), std::move(tail), 0, 1, ends_word_ && !eos}, where);
  }

 private:
  // A text behind what stands before it.
  std::string Behind(std::string_view separator, std::string_view text) const {
    return std::string(before_.text).append(separator).append(text);
  }

  void Write(PathWriter::Span span, const Where& where) { writer_.Write(std::move(span), where); }

  // The number of tokens that the context and a text have in common, where `tail` follows the
  // tokens of `before_cut` in the text. Makes `tail` what follows the common ones.
  size_t Shared(std::string_view before_cut, std::vector<int32_t>* tail) {
    const size_t start = stage_.options.start_token >= 0 ? 1 : 0;
    if (!before_cut.empty() &&
        (before_cut_ == nullptr || before_cut_->text().size() != before_cut.size())) {
      before_cut_ = stage_.tokens.Find(before_cut, call_);
    }
    const int32_t* const context = writer_.context_tokens();
    const int32_t* const context_end = context + writer_.context_size();
    const int32_t* before = nullptr;
    const int32_t* before_end = nullptr;
    if (!before_cut.empty()) {
      before = before_cut_->tokens->data() + start;
      before_end = before_cut_->tokens->data() + before_cut_->tokens->size();
    }
    const auto [in_context, in_before] = std::mismatch(context, context_end, before, before_end);
    if (in_before != before_end) {
      tail->insert(tail->begin(), in_before, before_end);
      return static_cast<size_t>(in_context - context);
    }
    const auto [differs, in_tail] =
        std::mismatch(in_context, context_end, tail->cbegin(), tail->cend());
    tail->erase(tail->cbegin(), in_tail);
    return static_cast<size_t>(differs - context);
  }

  const Impl& stage_;
  const TextBefore& before_;
  TextCall* const call_;
  const std::string_view separator_;  // between what stands before and the context
  const bool context_is_empty_;
  const bool separator_may_change_;  // by a candidate, which may be a part of the first word
  const std::shared_ptr<const TokenizedText> context_;
  const bool ends_word_;
  PathWriter writer_;
  std::shared_ptr<const TokenizedText>
      before_cut_;  // the part of the context before the cut used last
};

namespace {

void BeginCandidate(TokenPaths* paths) { ++paths->candidates; }
void BeginAlternative(TokenPaths* paths) { paths->candidate_of.push_back(paths->candidates - 1); }

}  // namespace

void TextStage::Impl::SameContext(const std::string& context, const std::vector<std::string>& words,
                                  size_t i, Join join, const TextBefore& before, TokenPaths* paths,
                                  TextCall* call) const {
  std::string text = left_to_right->Context(context);
  CheckUtf8At(text, {"contexts", i});
  const size_t context_bytes = text.size();
  ContextPaths writer(*this, before, text, paths, call);
  const JoinAfter joins(context, join);
  for (size_t j = 0; j < words.size(); ++j) {
    const Where where{"candidate_words", i, "", j};
    CheckUtf8At(words[j], where);
    text.resize(context_bytes);
    left_to_right->Append(Separated(joins, words[j]), &text);
    CheckCased(text, context_bytes, context_bytes, where);
    BeginCandidate(paths);
    BeginAlternative(paths);
    writer.Extended(text, where);
  }
  if (writer.truncated()) ++call->truncated_contexts;
}

void TextStage::Impl::AnyContext(const std::string& context, const std::vector<std::string>& words,
                                 size_t i, Join join, const TextBefore& before, TokenPaths* paths,
                                 TextCall* call) const {
  const JoinAfter joins(context, join);
  std::optional<ContextPaths> writer;  // of `cased_context`, met last
  std::string cased_context;
  bool truncated = false;
  for (size_t j = 0; j < words.size(); ++j) {
    const Where where{"candidate_words", i, "", j};
    CheckUtf8At(words[j], where);
    BeginCandidate(paths);
    for (const CasedText& cased : Forms(context, Separated(joins, words[j]), where)) {
      CheckCased(cased.text, cased.context_bytes, 0, where);
      const auto own = std::string_view(cased.text).substr(0, cased.context_bytes);
      if (!writer || cased_context != own) {
        cased_context = own;
        writer.emplace(*this, before, own, paths, call);
      }
      BeginAlternative(paths);
      writer->Extended(cased.text, where);
      truncated = truncated || writer->truncated();
    }
  }
  if (truncated) ++call->truncated_contexts;
}

TokenPaths TextStage::Impl::Continuations(
    const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& candidate_words, Join join,
    const TextBefore& before, TextCall* call) const {
  TokenPaths paths;
  size_t candidates = 0;
  for (const auto& words : candidate_words) candidates += words.size();
  paths.paths.reserve(candidates);
  paths.candidate_of.reserve(candidates);
  for (size_t i = 0; i < contexts.size(); ++i) {
    CheckUtf8At(contexts[i], {"contexts", i});
    if (candidate_words[i].empty()) continue;
    const auto one_context = left_to_right != nullptr ? &Impl::SameContext : &Impl::AnyContext;
    (this->*one_context)(contexts[i], candidate_words[i], i, join, before, &paths, call);
  }
  return paths;
}

TextStage::TextStage(std::shared_ptr<const Tokenizer> tokenizer,
                     std::shared_ptr<const Casing> casing, TextStageOptions options) {
  if (tokenizer == nullptr) throw std::invalid_argument("the text stage needs a tokenizer");
  if (casing == nullptr) throw std::invalid_argument("the text stage needs a casing");
  if (options.max_context_length < 1) {
    throw std::invalid_argument("max_context_length is " +
                                std::to_string(options.max_context_length) +
                                "; it must be at least 1");
  }
  impl_ = std::make_unique<Impl>(std::move(tokenizer), std::move(casing), options);
}

TextStage::~TextStage() = default;

TokenPaths TextStage::Continuations(const std::vector<std::string>& contexts,
                                    const std::vector<std::vector<std::string>>& candidate_words,
                                    Join join, TextCall* call, const TextBefore& before) const {
  return impl_->Continuations(contexts, candidate_words, join, before, call);
}

TokenPaths TextStage::Texts(const std::vector<std::string>& texts, bool eos, TextCall* call,
                            const TextBefore& before) const {
  if (eos && impl_->options.end_token < 0) {
    throw std::invalid_argument("eos: the model has no end-of-text token");
  }
  TokenPaths paths;
  paths.paths.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const Where where{"texts", i};
    CheckUtf8At(texts[i], where);
    const std::string text = impl_->casing->Apply("", texts[i]).text;
    CheckUtf8At(text, where);
    BeginCandidate(&paths);
    BeginAlternative(&paths);
    Impl::ContextPaths writer(*impl_, before, before.empty() ? text : "", &paths, call);
    if (before.empty()) {
      writer.Whole(eos, where);
    } else {
      writer.Extended(text, where, eos);
    }
    if (writer.truncated()) ++call->truncated_contexts;
  }
  return paths;
}

TokenPaths TextStage::Endings(const std::vector<std::string>& texts,
                              const std::vector<std::string>& endings, TextCall* call,
                              const TextBefore& before) const {
  for (size_t j = 0; j < endings.size(); ++j) {
    CheckUtf8At(endings[j], {"endings", j});
    if (endings[j].empty() && impl_->options.end_token < 0) {
      throw std::invalid_argument("endings[" + std::to_string(j) +
                                  "] is empty, which stands for the end-of-text token; the model "
                                  "has none");
    }
  }
  TokenPaths paths;
  paths.paths.reserve(texts.size() * endings.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    CheckUtf8At(texts[i], {"texts", i});
    if (endings.empty()) continue;
    std::string text = impl_->casing->Apply("", texts[i]).text;
    CheckUtf8At(text, {"texts", i});
    const size_t size = text.size();
    Impl::ContextPaths writer(*impl_, before, text, &paths, call);
    for (size_t j = 0; j < endings.size(); ++j) {
      const Where where{"texts", i, " with endings", j};
      BeginCandidate(&paths);
      BeginAlternative(&paths);
      if (endings[j].empty()) {
        writer.Ended(where);
      } else {
        text.replace(size, std::string::npos, endings[j]);
        writer.Extended(text, where);
      }
    }
    if (writer.truncated()) ++call->truncated_contexts;
  }
  return paths;
}

void TextStage::Forget(const std::string* cache_namespace) const {
  impl_->tokens.Forget(cache_namespace);
}

TextBefore TextStage::Before(const History& history, TextCall* call) const {
  if (history.prompt.empty() && history.utterances.empty()) return {};
  const TextStageOptions& options = impl_->options;
  const int64_t half = std::min(options.max_context_length, options.max_path_length / 2);
  const int64_t room = std::max<int64_t>(1, impl_->Positions() - half);
  bool dropped = false;
  TextBefore before = MakeTextBefore(history, options.join, *impl_->casing, impl_->tokens,
                                     options.max_path_length > 0 ? room : 0, call, &dropped);
  if (dropped) ++call->truncated_contexts;
  return before;
}

CasedText TextStage::Cased(const std::string& context, const std::string& word, Join join) const {
  CheckUtf8At(context, {"contexts", 0});
  CheckUtf8At(word, {"candidate_words", 0, "", 0});
  return impl_->casing->Apply(context, Separated(JoinAfter(context, join), word));
}

std::vector<CasedText> TextStage::Alternatives(const std::string& context, const std::string& word,
                                               Join join) const {
  CheckUtf8At(context, {"contexts", 0});
  CheckUtf8At(word, {"candidate_words", 0, "", 0});
  return impl_->casing->Alternatives(context, Separated(JoinAfter(context, join), word));
}

}  // namespace lmfusion
