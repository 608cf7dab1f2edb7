#pragma once

#include <torch/csrc/jit/api/module.h>

#include <memory>

#include "bundle/description.h"
#include "tree/plain_lm.h"

namespace lmfusion {

// A TorchScript causal language model, (ids [B, T], mask [B, T]) -> logits [B, T, vocabulary], run
// as it is, on the CPU. It is run once: that says how many words it knows, where the description
// does not. Throws ModelFileError.
std::unique_ptr<PlainLM> PlainTorchScriptLM(torch::jit::Module module,
                                            ModelDescription description);

}  // namespace lmfusion
