#pragma once

#include <memory>
#include <string_view>

#include "lmfusion/tokenizer.h"

// The one function of the library lmfusion_sentencepiece; see Note [A library of its own] in
// sentencepiece_loader.cpp.
extern "C" void lmfusion_open_sentencepiece(std::string_view model,
                                            std::shared_ptr<const lmfusion::Tokenizer>* tokenizer);
