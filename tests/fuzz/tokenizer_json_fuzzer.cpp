#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "lmfusion/errors.h"
#include "lmfusion/tokenizer.h"

// Any bytes are a tokenizer, or a TokenizerError; a tokenizer gives ids of its vocabulary, or an
// Error where its patterns take too many steps.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = lmfusion::TokenizerFromJson(json);
    for (const std::string_view text :
         {"", "the cat's  hat,", " a\n\u00e9\u4f60 12 <s>b", "aaaaaaaaaaaaaaaaaaaa!"}) {
      for (const int32_t id : tokenizer->Encode(text)) {
        tokenizer->BeginsWord(id);  // throws where it is no id of the vocabulary
        tokenizer->Piece(id);
      }
    }
  } catch (const lmfusion::Error&) {
  }
  return 0;
}
