#include "scorer/text_settings.h"

#include <algorithm>
#include <stdexcept>

#include "lmfusion/errors.h"
#include "lmfusion/truecaser.h"
#include "text/tokenizers/ordinary_ids.h"

namespace lmfusion {
namespace {

// Of the ids that text gives without an added token every one is a token of the model.
void CheckFits(const Tokenizer& tokenizer, const ModelDescription& model) {
  const auto* ids = dynamic_cast<const OrdinaryIds*>(&tokenizer);
  if (ids == nullptr || model.vocabulary_size == 0) return;
  if (ids->OrdinarySize() <= model.vocabulary_size) return;
  const bool is_json = model.tokenizer == "tokenizer.json";
  throw ModelFileError(model.file + ": " + model.tokenizer +
                       (is_json ? ": model.vocab: " : ": pieces: ") + "ids up to " +
                       std::to_string(ids->OrdinarySize() - 1) + ", but the model has " +
                       std::to_string(model.vocabulary_size) +
                       " tokens (lmfusion.json: vocabulary_size): it is another model's tokenizer");
}

// Positions of the model that max_context_length leaves to a candidate.
constexpr int64_t kLeastCandidatePositions = 16;

}  // namespace

std::shared_ptr<const Tokenizer> MakeTokenizer(const ScorerOptions& options, const Bundle& bundle) {
  const bool is_json = bundle.description.tokenizer == "tokenizer.json";
  if (options.special_tokens == SpecialTokens::kAllow &&
      (options.tokenizer != nullptr || !is_json)) {
    throw std::invalid_argument(
        "special_tokens = \"allow\" is for models with a tokenizer.json: a SentencePiece file does "
        "not say what becomes of the text beside a control token, and a tokenizer function reads "
        "control tokens as it will; give one that does (option tokenizer) and leave this at "
        "\"text\"");
  }
  if (options.tokenizer != nullptr) return options.tokenizer;
  std::shared_ptr<const Tokenizer> tokenizer;  // none is enough for token paths
  if (is_json) tokenizer = TokenizerFromJson(bundle.tokenizer, options.special_tokens);
  if (bundle.description.tokenizer == "tokenizer.model") {
    tokenizer = TokenizerFromSentencePiece(bundle.tokenizer);
  }
  if (tokenizer != nullptr) CheckFits(*tokenizer, bundle.description);
  return tokenizer;
}

std::shared_ptr<const Casing> MakeCasing(const ScorerOptions& options, const Bundle& bundle) {
  if (options.casing_object != nullptr) return options.casing_object;
  if (options.casing != "truecase" && options.casing != "truecase-compat") {
    return CasingByName(options.casing);
  }
  const bool compat = options.casing == "truecase-compat";
  if (!options.truecaser.empty()) return TruecaserFromFile(options.truecaser, compat);
  if (!bundle.truecaser.empty()) return TruecaserFromBytes(bundle.truecaser, compat);
  throw std::invalid_argument(
      "casing = \"" + options.casing +
      "\" needs a truecaser, and the model file has none; make "
      "one with `python -m lmfusion export-truecaser` and name it in the option truecaser");
}

int32_t StartToken(const ScorerOptions& options, const ModelDescription& model,
                   const Tokenizer* tokenizer) {
  if (options.bos_id != kAuto) {
    if (options.bos != "auto") {
      throw std::invalid_argument("bos = \"" + options.bos + "\" and bos_id = " +
                                  std::to_string(options.bos_id) + " are both given; one expected");
    }
    const int64_t tokens = model.vocabulary_size > 0 ? model.vocabulary_size : INT32_MAX;
    if (options.bos_id >= 0 && options.bos_id < tokens) {
      return static_cast<int32_t>(options.bos_id);
    }
    throw std::invalid_argument("bos_id = " + std::to_string(options.bos_id) +
                                " is not within the vocabulary of " +
                                std::to_string(model.vocabulary_size) + " tokens");
  }
  if (options.bos == "auto") return model.bos_token_id;
  if (options.bos == "tokenizer") return model.tokenizer_adds_bos ? model.bos_token_id : -1;
  if (options.bos == "none") return -1;
  const int32_t id = tokenizer == nullptr ? -1 : tokenizer->PieceId(options.bos);
  if (id < 0) {
    throw std::invalid_argument("bos = \"" + options.bos +
                                "\" is neither \"auto\", \"tokenizer\" "
                                "nor \"none\", nor a token of the vocabulary");
  }
  if (model.vocabulary_size > 0 && id >= model.vocabulary_size) {
    throw std::invalid_argument("bos = \"" + options.bos + "\" has the id " + std::to_string(id) +
                                ", which is not a token of the model: it has " +
                                std::to_string(model.vocabulary_size));
  }
  return id;
}

int64_t ContextLength(const ScorerOptions& options, const ModelDescription& model) {
  if (model.max_positions == 0) return options.max_context_length;
  const int64_t left = std::min(kLeastCandidatePositions, model.max_positions / 2);
  return std::max<int64_t>(1, std::min(options.max_context_length, model.max_positions - 1 - left));
}

std::vector<bool> WordBeginnings(const Tokenizer& tokenizer, const ModelDescription& model) {
  std::vector<bool> begins(model.vocabulary_size, false);
  const auto known = std::min<int64_t>(model.vocabulary_size, tokenizer.VocabularySize());
  for (int32_t id = 0; id < known; ++id) begins[id] = tokenizer.BeginsWord(id);
  if (model.eos_token_id >= 0 && model.eos_token_id < model.vocabulary_size) {
    begins[model.eos_token_id] = true;
  }
  return begins;
}

}  // namespace lmfusion
