#include "text/stage/text_tokens.h"

#include <string>
#include <utility>

// Note [Incremental tokenizing]
// Encode(text) = Encode(text[0, c)) + EncodeAfterCut(text[c, end)) at every cut c of the text
// (Tokenizer::LastCut). So with the tokens of text[0, c) at hand, only what follows c is new.
// Remembered are the texts asked for, which a longer hypothesis extends, and each one's part up to
// its last cut, from which other hypotheses may branch off. What is remembered for a string are
// the tokens of that string alone, whatever text it was met in.

namespace lmfusion {
namespace {

constexpr size_t kMemoBytes = 32 << 20;
constexpr int kProbes = 16;  // cuts at which a remembered prefix is looked for

// With its length, a namespace and a text never read like another namespace and another text.
std::string Owner(std::string_view cache_namespace) {
  return std::to_string(cache_namespace.size()) + ":" + std::string(cache_namespace);
}

}  // namespace

TextTokens::TextTokens(std::shared_ptr<const Tokenizer> tokenizer, int32_t start_token)
    : tokenizer_(std::move(tokenizer)), start_token_(start_token), memo_(kMemoBytes) {}

size_t TextTokens::LastCut(std::string_view text, size_t at) const {
  return at == 0 ? 0 : tokenizer_->LastCut(text, at);
}

std::vector<int32_t> TextTokens::EncodeFrom(std::string_view text, size_t cut,
                                            TextCall* call) const {
  const std::string_view rest = text.substr(cut);
  call->bytes_tokenized += rest.size();
  if (rest.empty()) return {};
  return cut == 0 ? tokenizer_->Encode(rest) : tokenizer_->EncodeAfterCut(rest);
}

std::shared_ptr<const TokenizedText> TextTokens::Find(std::string_view text, TextCall* call) const {
  const std::string owner = Owner(call->cache_namespace);
  const std::string all = owner + std::string(text);
  const Source source{all, owner.size()};
  if (Found known = memo_.Find(source.all)) return known;
  Found prefix;
  if (const size_t cut = text.empty() ? 0 : LastCut(text, text.size() - 1); cut > 0) {
    const Source before = source.First(cut);
    prefix = memo_.Find(before.all);
    if (prefix == nullptr) prefix = Extend(LongestKnownPrefix(before), before, call);
  }
  return Extend(prefix, source, call);
}

void TextTokens::Forget(const std::string* cache_namespace) const {
  memo_.Forget(cache_namespace == nullptr ? "" : Owner(*cache_namespace));
}

// Null where none is known.
TextTokens::Found TextTokens::LongestKnownPrefix(Source source) const {
  size_t at = source.text().size() - 1;
  for (int probe = 0; probe < kProbes; ++probe) {
    const size_t cut = LastCut(source.text(), at);
    if (cut == 0) break;
    if (Found known = memo_.Find(source.First(cut).all)) return known;
    at = cut - 1;
  }
  return nullptr;
}

// `prefix`: null, or what comes before a cut of the text.
TextTokens::Found TextTokens::Extend(const Found& prefix, Source source, TextCall* call) const {
  const std::vector<int32_t> rest =
      EncodeFrom(source.text(), prefix == nullptr ? 0 : prefix->text().size(), call);
  auto tokens = std::make_shared<std::vector<int32_t>>();
  tokens->reserve((prefix == nullptr ? 1 : prefix->tokens->size()) + rest.size());
  if (prefix != nullptr) {
    *tokens = *prefix->tokens;
  } else if (start_token_ >= 0) {
    tokens->push_back(start_token_);
  }
  tokens->insert(tokens->end(), rest.begin(), rest.end());
  auto found = std::make_shared<TokenizedText>();
  found->source = source.all;
  found->text_begin = source.text_begin;
  found->tokens = std::move(tokens);
  memo_.Add(found);
  return found;
}

}  // namespace lmfusion
