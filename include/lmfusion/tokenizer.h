#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lmfusion {

// Text to token ids, as the model was trained on. Thread safe: every method may be called from
// many threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Token ids of `text` (UTF-8) without start or end token. Throws TextError where `text` is not
  // valid UTF-8.
  virtual std::vector<int32_t> Encode(std::string_view text) const = 0;

  // A place where `text` can be tokenized in two parts: the largest byte c, 0 < c <= at, for which
  //   Encode(text) == Encode(text[0, c)) + EncodeAfterCut(text[c, end)),
  // or 0 where none was found (it may overlook some). Costs in proportion to the distance from
  // `at` to c, not to the text.
  virtual size_t LastCut(std::string_view text, size_t at) const;

  // Token ids of what follows a cut.
  virtual std::vector<int32_t> EncodeAfterCut(std::string_view rest) const;

  // The text of tokens, control tokens as the vocabulary writes them; Decode(Encode(text)) is
  // `text` as far as the tokenizer keeps it. Not UTF-8 where a token is a part of a character.
  // Throws std::invalid_argument for an id out of range, and where the tokenizer has no pieces.
  virtual std::string Decode(const std::vector<int32_t>& ids) const;

  // Whether a token begins a new word: its text starts with white space (" the", "▁the", "\n").
  // Throws std::invalid_argument where `id` is not in [0, VocabularySize()).
  virtual bool BeginsWord(int32_t id) const = 0;

  // The token as it is written in its vocabulary ("Ġthe", "▁the", "<|endoftext|>"), for people to
  // read. Throws std::invalid_argument where `id` is not in [0, VocabularySize()).
  virtual std::string Piece(int32_t id) const = 0;

  // The id of a token written as in its vocabulary, control tokens too; -1 where there is none.
  virtual int32_t PieceId(std::string_view piece) const = 0;

  // Number of ids, added tokens counted.
  virtual int32_t VocabularySize() const = 0;
};

// What text that spells a control token ("<|endoftext|>") is.
enum class SpecialTokens {
  kText,   // its letters, tokenized like any others: no text gives a control token
  kAllow,  // the token, as Hugging Face's tokenizers read it unless told otherwise
};

// A Hugging Face tokenizer.json, given as its text: byte-level BPE, or SentencePiece-style BPE.
// Throws TokenizerError, naming the part, where it has a model, normaliser or pre-tokenizer that
// is not implemented here.
std::shared_ptr<const Tokenizer> TokenizerFromJson(
    std::string_view json, SpecialTokens special_tokens = SpecialTokens::kText);

// A SentencePiece model (tokenizer.model), given as its bytes; control tokens in text are letters.
// Throws TokenizerError.
std::shared_ptr<const Tokenizer> TokenizerFromSentencePiece(std::string_view model);

// Any function from text to token ids. It has no pieces, no cuts, and no word boundaries (the
// boundary policy "word" is refused with it). `encode` must be thread safe.
std::shared_ptr<const Tokenizer> TokenizerFromFunction(
    std::function<std::vector<int32_t>(const std::string&)> encode, int32_t vocabulary_size);

}  // namespace lmfusion
