#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lmfusion {

// What of a SentencePiece model tells where text may be cut, and which ids text has.
struct SentencePieceTraits {
  enum ModelType { kUnigram = 1, kBpe = 2, kWord = 3, kCharacter = 4 };
  int model_type = kUnigram;
  std::string normalization = "";
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool whitespace_is_suffix = false;
  bool piece_spans_space = false;     // a piece has a space (mark) after another character
  bool user_piece_has_space = false;  // a user-defined piece has a plain space
  int32_t pieces = 0;
  int32_t ordinary_size = 0;  // one more than the last piece that is a normal one
};

// Reads them from the bytes of a model (protocol buffers). Throws TokenizerError where they end too
// early, or where the library would read beyond them (Note [Normalisation tables]).
SentencePieceTraits ReadSentencePieceTraits(std::string_view model);

}  // namespace lmfusion
