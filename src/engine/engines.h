#pragma once

#include <functional>
#include <memory>
#include <string>

#include "bundle/bundle.h"
#include "lmfusion/options.h"
#include "tree/causal_lm.h"
#include "tree/plain_lm.h"

namespace lmfusion {

// Note [Another engine]
// An engine is a class behind CausalLM and a row of the table in engines.cpp. It is chosen by the
// option `device`, gets the model file that was checked, and may read of it what it likes: the
// TorchScript module (LoadModule) or parts of its own. Tree, cache and text know nothing of it.
struct Engine {
  // Whether it runs models on this device.
  std::function<bool(const std::string& device)> runs;
  // Throws std::invalid_argument for options that it does not have, before a large file is read.
  std::function<void(const ScorerOptions& options)> check;
  // Throws ModelFileError, std::invalid_argument, OutOfDeviceMemory.
  std::function<std::unique_ptr<CausalLM>(const ModelFile& file, const Bundle& bundle,
                                          const ScorerOptions& options)>
      load;
};

// Adds an engine from outside of the library; it is asked before the library's own. Not while
// models are being loaded.
void AddEngine(Engine engine);

struct LoadedModel {
  Bundle bundle;
  std::unique_ptr<CausalLM> tree;  // one of the two is null
  std::unique_ptr<PlainLM> plain;
};

// Reads and checks a model file, a bundle (docs/export.md) or any TorchScript causal language model
// (ids, mask) -> logits, and gives it to the engine of options.device. Throws ModelFileError, and
// std::invalid_argument for an option.
LoadedModel LoadModel(const std::string& path, const ScorerOptions& options);

}  // namespace lmfusion
