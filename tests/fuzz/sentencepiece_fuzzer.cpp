#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "edits.h"
#include "lmfusion/errors.h"
#include "sentencepiece_file.h"
#include "text/tokenizers/sentencepiece_library.h"

namespace {

// A model that normalises by a table: a trie of 256 empty nodes, and what characters become.
std::string ModelWithTable() {
  return lmfusion::TinySentencePieceModel(
      "", std::string("\0\4\0\0", 4) + std::string(1024, '\0') + std::string("a\0b\0", 4));
}

}  // namespace

// Any bytes are a tokenizer, or a TokenizerError. Inputs are edits of a small model where they
// begin with an even byte.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string model = data[0] % 2 == 0
                                ? lmfusion::Edited(ModelWithTable(), data + 1, size - 1)
                                : std::string(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    std::shared_ptr<const lmfusion::Tokenizer> tokenizer;
    lmfusion_open_sentencepiece(model, &tokenizer);
    for (const int32_t id : tokenizer->Encode("ab  b\u00e9 ab a")) {
      tokenizer->BeginsWord(id);
      tokenizer->Piece(id);
    }
  } catch (const lmfusion::Error&) {
  }
  return 0;
}
