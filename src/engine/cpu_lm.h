#pragma once

#include <torch/csrc/jit/api/module.h>

#include <memory>
#include <string>

#include "engine/stored_weights.h"
#include "engine/tree_engine.h"

namespace lmfusion {

// A tree model on the CPU, its weights packed for it; keys, values and hidden states in float32.
// module: loaded to the CPU; weights: of this module. Both are used up. compute: see
// docs/speed.md. Throws ModelFileError, std::invalid_argument.
std::unique_ptr<TreeEngine> CpuLM(torch::jit::Module module, StoredWeights weights,
                                  ModelDescription description, Compute compute);

}  // namespace lmfusion
