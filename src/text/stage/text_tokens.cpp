#include "text/stage/text_tokens.h"

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

}  // namespace

TextTokens::TextTokens(std::shared_ptr<const Tokenizer> tokenizer, int32_t start_token)
    : tokenizer_(std::move(tokenizer)), start_token_(start_token), memo_(kMemoBytes) {}

size_t TextTokens::LastCut(std::string_view text, size_t at) const {
  return at == 0 ? 0 : tokenizer_->LastCut(text, at);
}

std::vector<int32_t> TextTokens::EncodeFrom(std::string_view text, size_t cut,
                                            uint64_t* bytes_tokenized) const {
  const std::string_view rest = text.substr(cut);
  *bytes_tokenized += rest.size();
  if (rest.empty()) return {};
  return cut == 0 ? tokenizer_->Encode(rest) : tokenizer_->EncodeAfterCut(rest);
}

std::shared_ptr<const TokenizedText> TextTokens::Find(std::string_view text,
                                                      uint64_t* bytes_tokenized) const {
  if (Found known = memo_.Find(text)) return known;
  Found prefix;
  if (const size_t cut = text.empty() ? 0 : LastCut(text, text.size() - 1); cut > 0) {
    const std::string_view before = text.substr(0, cut);
    prefix = memo_.Find(before);
    if (prefix == nullptr) prefix = Extend(LongestKnownPrefix(before), before, bytes_tokenized);
  }
  return Extend(prefix, text, bytes_tokenized);
}

// Null where none is known.
TextTokens::Found TextTokens::LongestKnownPrefix(std::string_view text) const {
  size_t at = text.size() - 1;
  for (int probe = 0; probe < kProbes; ++probe) {
    const size_t cut = LastCut(text, at);
    if (cut == 0) break;
    if (Found known = memo_.Find(text.substr(0, cut))) return known;
    at = cut - 1;
  }
  return nullptr;
}

// `prefix`: null, or what comes before a cut of `text`.
TextTokens::Found TextTokens::Extend(const Found& prefix, std::string_view text,
                                     uint64_t* bytes_tokenized) const {
  const std::vector<int32_t> rest =
      EncodeFrom(text, prefix == nullptr ? 0 : prefix->source.size(), bytes_tokenized);
  auto tokens = std::make_shared<std::vector<int32_t>>();
  tokens->reserve((prefix == nullptr ? 1 : prefix->tokens->size()) + rest.size());
  if (prefix != nullptr) {
    *tokens = *prefix->tokens;
  } else if (start_token_ >= 0) {
    tokens->push_back(start_token_);
  }
  tokens->insert(tokens->end(), rest.begin(), rest.end());
  auto found = std::make_shared<TokenizedText>();
  found->source = text;
  found->tokens = std::move(tokens);
  memo_.Add(found);
  return found;
}

}  // namespace lmfusion
