#include "lmfusion/errors.h"
#include "lmfusion/tokenizer.h"

namespace lmfusion {

// Stands in for sentencepiece_tokenizer.cpp where LMFUSION_SENTENCEPIECE is off.
std::shared_ptr<const Tokenizer> TokenizerFromSentencePiece(std::string_view) {
  throw TokenizerError(
      "this build of lmfusion reads no SentencePiece models: configure it with "
      "-DLMFUSION_SENTENCEPIECE=ON, or give the scorer a function from text to token ids");
}

}  // namespace lmfusion
