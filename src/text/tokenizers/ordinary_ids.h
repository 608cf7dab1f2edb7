#pragma once

#include <cstdint>

namespace lmfusion {

// A tokenizer that was read from a file knows which of its ids text can give without spelling an
// added token.
class OrdinaryIds {
 public:
  virtual ~OrdinaryIds() = default;

  // One more than the largest id of the vocabulary, control tokens and other added tokens left out:
  // of those, models in the field have more than rows of their output matrix (Gemma 3's token of
  // images, a padding token that was added later).
  virtual int32_t OrdinarySize() const = 0;
};

}  // namespace lmfusion
