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

// A text from its beginning, and its tokens.
struct TokenizedText {
  std::string source;
  // The start token, where there is one, and the tokens of `source`.
  std::shared_ptr<const std::vector<int32_t>> tokens;

  size_t bytes() const { return 256 + source.size() + tokens->size() * sizeof(int32_t); }
};

// Tokens of texts that mostly extend texts seen before; see Note [Incremental tokenizing].
// Thread safe.
class TextTokens {
 public:
  // start_token: -1 for none.
  TextTokens(std::shared_ptr<const Tokenizer> tokenizer, int32_t start_token);

  // Adds the bytes that had to be tokenized to `bytes_tokenized`.
  std::shared_ptr<const TokenizedText> Find(std::string_view text, uint64_t* bytes_tokenized) const;

  // The same for text that is not worth remembering: text[cut, end) for `cut` from LastCut, the
  // whole text for 0.
  std::vector<int32_t> EncodeFrom(std::string_view text, size_t cut,
                                  uint64_t* bytes_tokenized) const;
  size_t LastCut(std::string_view text, size_t at) const;

 private:
  using Found = std::shared_ptr<const TokenizedText>;

  Found LongestKnownPrefix(std::string_view text) const;
  Found Extend(const Found& prefix, std::string_view text, uint64_t* bytes_tokenized) const;

  const std::shared_ptr<const Tokenizer> tokenizer_;
  const int32_t start_token_;
  mutable TextMemo<TokenizedText> memo_;
};

}  // namespace lmfusion
