#pragma once

#include <string_view>
#include <vector>

#include "text/tokenizers/added_tokens.h"
#include "text/tokenizers/bpe.h"
#include "text/tokenizers/normalizer.h"
#include "text/tokenizers/pre_tokenizer.h"

namespace lmfusion {

// The parts of a tokenizer.json.
struct TokenizerParts {
  Bpe::Definition model;
  Normalizer normalizer;
  std::vector<PreTokenizer::Step> pre_tokenizer;
  std::vector<AddedToken> added_tokens;
};

// Throws TokenizerError, naming what is wrong or not implemented.
TokenizerParts ReadTokenizerJson(std::string_view json);

// How a user does without a tokenizer that is not implemented; ends such messages.
inline constexpr const char* kTokenizerWayOut =
    ". Export the model without its tokenizer (tokenizer=None, or --no-tokenizer on the command "
    "line) and give the scorer a function from text to token ids";

}  // namespace lmfusion
