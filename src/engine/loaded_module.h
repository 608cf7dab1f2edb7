#pragma once

#include <torch/csrc/jit/api/module.h>

#include "bundle/bundle.h"

namespace lmfusion {

enum class WeightMemory {
  kRead,      // all of them are read
  kDeferred,  // large matrices are read when they are packed, where the file allows that, which
              // must stay until then (deferred_weights.h)
};

// The module of a model file that was checked (ReadBundle), on the CPU. Throws ModelFileError: it
// cannot be loaded, or its tensors are not those of the table.
torch::jit::Module LoadModule(const ModelFile& file, const PartTable& table, WeightMemory memory);

}  // namespace lmfusion
