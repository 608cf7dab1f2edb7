#include "text_stage.h"

#include <algorithm>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "lmfusion/errors.h"
#include "text/left_to_right_casing.h"
#include "text/path_writer.h"
#include "text/text_tokens.h"
#include "text/utf8.h"

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
  if (InvalidUtf8(text) != std::string_view::npos) CheckUtf8(text, where());
}

void CheckEndToken(int32_t end_token) {
  if (end_token >= 0) return;
  throw std::invalid_argument("the model has no end-of-text token, so the end of a text has no "
                              "probability: eos and the ending \"\" cannot be asked for");
}

void BeginCandidate(TokenPaths* paths) { ++paths->candidates; }
void BeginAlternative(TokenPaths* paths) { paths->candidate_of.push_back(paths->candidates - 1); }

}  // namespace

struct TextStage::Impl {
  Impl(std::shared_ptr<const Tokenizer> tokenizer_given, std::shared_ptr<const Casing> casing_given,
       TextStageOptions options_given)
      : casing(std::move(casing_given)),
        left_to_right(dynamic_cast<const LeftToRightCasing*>(casing.get())),
        options(options_given),
        tokens(std::move(tokenizer_given), options.start_token) {}

  PathLimits limits() const {
    return {options.start_token >= 0, options.max_context_length, options.max_path_length};
  }

  bool OneContext(const std::string& context, const std::vector<std::string>& words, size_t c,
                  TokenPaths* paths, TextCounters* counters) const;
  bool AnyContexts(const std::string& context, const std::vector<std::string>& words, size_t c,
                   TokenPaths* paths, TextCounters* counters) const;

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
class TextStage::ContextPaths {
 public:
  ContextPaths(const Impl& stage, std::string_view context, TokenPaths* paths,
               TextCounters* counters)
      : stage_(stage),
        counters_(counters),
        context_(stage.tokens.Find(context, &counters->bytes_tokenized)),
        ends_word_(stage.EndsWord(context)),
        writer_(context_->tokens, stage.limits(), paths) {}

  const std::string& text() const { return context_->source; }
  bool truncated() const { return writer_.truncated(); }

  // log p(text) - log p(context); `text` begins with the context.
  void Extended(std::string_view text, const Where& where) {
    const size_t size = context_->source.size();
    const size_t cut = stage_.tokens.LastCut(text, size);
    std::vector<int32_t> tail = stage_.tokens.EncodeFrom(text, cut, &counters_->bytes_tokenized);
    size_t shared = writer_.context_size();
    if (cut < size) shared = Shared(text.substr(0, cut), &tail);
    Write({shared, std::move(tail), shared, 1, stage_.EndsWord(text)}, where);
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
  void Write(PathWriter::Span span, const Where& where) { writer_.Write(std::move(span), where); }

  // The number of tokens that the context and a text have in common, where `tail` follows the
  // tokens of `before_cut` in the text. Makes `tail` what follows the common ones.
  size_t Shared(std::string_view before_cut, std::vector<int32_t>* tail) {
    const size_t start = stage_.options.start_token >= 0 ? 1 : 0;
    if (!before_cut.empty() &&
        (before_cut_ == nullptr || before_cut_->source.size() != before_cut.size())) {
      before_cut_ = stage_.tokens.Find(before_cut, &counters_->bytes_tokenized);
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
  TextCounters* const counters_;
  const std::shared_ptr<const TokenizedText> context_;
  const bool ends_word_;
  PathWriter writer_;
  std::shared_ptr<const TokenizedText> before_cut_;  // the part of the context before the cut used last
};

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
                                    TextCounters* counters) const {
  TokenPaths paths;
  for (size_t c = 0; c < contexts.size(); ++c) {
    CheckUtf8At(contexts[c], {"contexts", c});
    for (size_t w = 0; w < candidate_words[c].size(); ++w) {
      CheckUtf8At(candidate_words[c][w], {"candidate_words", c, "", w});
    }
    if (candidate_words[c].empty()) continue;
    const bool truncated = impl_->left_to_right != nullptr
                               ? impl_->OneContext(contexts[c], candidate_words[c], c, &paths, counters)
                               : impl_->AnyContexts(contexts[c], candidate_words[c], c, &paths, counters);
    counters->truncated_contexts += truncated ? 1 : 0;
  }
  return paths;
}

// The candidates' cased contexts are the same: it is written once. Whether it was truncated.
bool TextStage::Impl::OneContext(const std::string& context, const std::vector<std::string>& words,
                                 size_t c, TokenPaths* paths, TextCounters* counters) const {
  std::string text = left_to_right->Context(context);
  const size_t context_size = text.size();
  ContextPaths of_context(*this, text, paths, counters);
  for (size_t w = 0; w < words.size(); ++w) {
    BeginCandidate(paths);
    BeginAlternative(paths);
    text.resize(context_size);
    left_to_right->Append(words[w], &text);
    of_context.Extended(text, {"candidate_words", c, "", w});
  }
  return of_context.truncated();
}

// Every candidate may change how its context is cased; mostly few forms come up.
bool TextStage::Impl::AnyContexts(const std::string& context, const std::vector<std::string>& words,
                                  size_t c, TokenPaths* paths, TextCounters* counters) const {
  std::unordered_map<std::string, ContextPaths> forms;
  bool truncated = false;
  for (size_t w = 0; w < words.size(); ++w) {
    BeginCandidate(paths);
    for (const CasedText& cased : casing->Alternatives(context, words[w])) {
      BeginAlternative(paths);
      const std::string cased_context = cased.text.substr(0, cased.context_bytes);
      ContextPaths& of_context =
          forms.try_emplace(cased_context, *this, cased_context, paths, counters).first->second;
      of_context.Extended(cased.text, {"candidate_words", c, "", w});
      truncated = truncated || of_context.truncated();
    }
  }
  return truncated;
}

TokenPaths TextStage::Texts(const std::vector<std::string>& texts, bool eos,
                            TextCounters* counters) const {
  if (eos) CheckEndToken(impl_->options.end_token);
  TokenPaths paths;
  for (size_t i = 0; i < texts.size(); ++i) {
    CheckUtf8At(texts[i], {"texts", i});
    BeginCandidate(&paths);
    BeginAlternative(&paths);
    ContextPaths whole(*impl_, impl_->casing->Apply("", texts[i]).text, &paths, counters);
    whole.Whole(eos, {"texts", i});
    counters->truncated_contexts += whole.truncated() ? 1 : 0;
  }
  return paths;
}

TokenPaths TextStage::Endings(const std::vector<std::string>& texts,
                              const std::vector<std::string>& endings,
                              TextCounters* counters) const {
  for (size_t e = 0; e < endings.size(); ++e) {
    CheckUtf8At(endings[e], {"endings", e});
    if (endings[e].empty()) CheckEndToken(impl_->options.end_token);
  }
  TokenPaths paths;
  for (size_t i = 0; i < texts.size(); ++i) {
    CheckUtf8At(texts[i], {"texts", i});
    if (endings.empty()) continue;
    const std::string text = impl_->casing->Apply("", texts[i]).text;
    ContextPaths of_text(*impl_, text, &paths, counters);
    for (size_t e = 0; e < endings.size(); ++e) {
      BeginCandidate(&paths);
      BeginAlternative(&paths);
      if (endings[e].empty()) {
        of_text.Ended({"texts", i});
      } else {
        of_text.Extended(text + endings[e], {"texts", i, " with endings", e});
      }
    }
    counters->truncated_contexts += of_text.truncated() ? 1 : 0;
  }
  return paths;
}

CasedText TextStage::Cased(const std::string& context, const std::string& word) const {
  return impl_->casing->Apply(context, word);
}

}  // namespace lmfusion
