#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lmfusion/tokenizer.h"
#include "text/text_memo.h"

namespace lmfusion {

// Whose texts a call has, and what reading them took.
struct TextCall {
  // What is remembered of one namespace's texts is of no use to another's calls.
  std::string_view cache_namespace;
  uint64_t truncated_contexts = 0;
  uint64_t bytes_tokenized = 0;
};

// A text from its beginning, and its tokens.
struct TokenizedText {
  std::string source;  // the namespace, with its length before it, and the text
  size_t text_begin = 0;
  // The start token, where there is one, and the tokens of the text.
  std::shared_ptr<const std::vector<int32_t>> tokens;

  std::string_view text() const { return std::string_view(source).substr(text_begin); }

  size_t bytes() const { return 256 + source.size() + tokens->size() * sizeof(int32_t); }
};

// Tokens of texts that mostly extend texts seen before; see Note [Incremental tokenizing].
// Thread safe.
class TextTokens {
 public:
  // start_token: -1 for none.
  TextTokens(std::shared_ptr<const Tokenizer> tokenizer, int32_t start_token);

  // Counts the bytes that had to be tokenized.
  std::shared_ptr<const TokenizedText> Find(std::string_view text, TextCall* call) const;

  // The same for text that is not worth remembering: text[cut, end) for `cut` from LastCut, the
  // whole text for 0.
  std::vector<int32_t> EncodeFrom(std::string_view text, size_t cut, TextCall* call) const;
  size_t LastCut(std::string_view text, size_t at) const;

  // Forgets the texts of a namespace; null: all.
  void Forget(const std::string* cache_namespace) const;

 private:
  using Found = std::shared_ptr<const TokenizedText>;
  // A text as the source of a TokenizedText.
  struct Source {
    std::string_view all;
    size_t text_begin;
    std::string_view text() const { return all.substr(text_begin); }
    Source First(size_t bytes) const { return {all.substr(0, text_begin + bytes), text_begin}; }
  };

  Found LongestKnownPrefix(Source source) const;
  Found Extend(const Found& prefix, Source source, TextCall* call) const;

  const std::shared_ptr<const Tokenizer> tokenizer_;
  const int32_t start_token_;
  mutable TextMemo<TokenizedText> memo_;
};

}  // namespace lmfusion
