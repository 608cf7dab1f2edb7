#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bundle/bundle.h"
#include "lmfusion/casing.h"
#include "lmfusion/options.h"
#include "lmfusion/tokenizer.h"

namespace lmfusion {

// What a scorer's options and its model file together say about texts.

// Null where neither has one: enough for token paths. Throws TokenizerError, and ModelFileError
// where the vocabulary of the file's tokenizer is larger than the model's, added tokens left out.
std::shared_ptr<const Tokenizer> MakeTokenizer(const ScorerOptions& options, const Bundle& bundle);
// Throws std::invalid_argument, ModelFileError.
std::shared_ptr<const Casing> MakeCasing(const ScorerOptions& options, const Bundle& bundle);
// -1: none. Throws std::invalid_argument for a token that is not in the vocabulary.
int32_t StartToken(const ScorerOptions& options, const ModelDescription& model,
                   const Tokenizer* tokenizer);
// max_context_length, or what the model's positions leave of it beside a candidate.
int64_t ContextLength(const ScorerOptions& options, const ModelDescription& model);
// [vocabulary] which tokens begin a word or end the text.
std::vector<bool> WordBeginnings(const Tokenizer& tokenizer, const ModelDescription& model);

}  // namespace lmfusion
