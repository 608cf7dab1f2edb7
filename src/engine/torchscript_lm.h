#pragma once

#include <memory>
#include <string>

#include "bundle/bundle.h"
#include "lmfusion/options.h"
#include "tree/causal_lm.h"
#include "tree/plain_lm.h"

namespace lmfusion {

struct LoadedModel {
  Bundle bundle;
  std::unique_ptr<CausalLM> tree;  // one of the two is null
  std::unique_ptr<PlainLM> plain;
};

// Reads a TorchScript file: a bundle (docs/export.md), or any causal language model
// (ids, mask) -> logits. The only function that knows of TorchScript files.
// Of the options, device, compute and kv_dtype matter. Throws ModelFileError, and
// std::invalid_argument for an option.
LoadedModel LoadTorchScript(const std::string& path, const ScorerOptions& options);

}  // namespace lmfusion
