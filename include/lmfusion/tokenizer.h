#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lmfusion {

// Text to token ids, as the model was trained on. Thread safe: Encode may be called from many
// threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Token ids of `text` (UTF-8) without start or end token. Control tokens such as "<|endoftext|>"
  // are never produced from text: their characters are tokenized like any others.
  // Throws TextError where `text` is not valid UTF-8.
  virtual std::vector<int32_t> Encode(std::string_view text) const = 0;

  // The token as it is written in its vocabulary ("Ġthe", "▁the", "<|endoftext|>"), for people to
  // read. Throws std::invalid_argument where `id` is not in [0, VocabularySize()).
  virtual std::string Piece(int32_t id) const = 0;

  // The id of a token written as in its vocabulary, control tokens too; -1 where there is none.
  virtual int32_t PieceId(std::string_view piece) const = 0;

  // Number of ids, added tokens counted.
  virtual int32_t VocabularySize() const = 0;
};

// A Hugging Face tokenizer.json, given as its text. Throws TokenizerError, naming the part, where
// it has a model, normaliser or pre-tokenizer that is not implemented here.
std::unique_ptr<Tokenizer> TokenizerFromJson(std::string_view json);

// A SentencePiece model (tokenizer.model), given as its bytes. Throws TokenizerError.
std::unique_ptr<Tokenizer> TokenizerFromSentencePiece(std::string_view model);

}  // namespace lmfusion
