#pragma once

#include <string>

#include "lmfusion/errors.h"
#include "lmfusion/tokenizer.h"

namespace lmfusion {

// What TokenizerFromJson says of `json`; "" where it takes it.
inline std::string Refusal(const std::string& json) {
  try {
    TokenizerFromJson(json);
  } catch (const TokenizerError& error) {
    return error.what();
  }
  return "";
}

}  // namespace lmfusion
