#pragma once

#include <torch/csrc/jit/api/module.h>

#include "ops/packed_linear.h"

namespace lmfusion {

// Passes over the graph of a model's method `forward`, before it runs for the first time. What
// they do not recognise stays as it was exported, and works.

struct PackedGraph {
  int64_t linears = 0;        // products that are packed
  int64_t plain_linears = 0;  // products that are not, for whatever reason
  c10::intrusive_ptr<PackedMatrix> output;  // of attribute output_weight (and output_bias)
};

// Every product with a weight of the model becomes lmfusion::linear over a packed matrix; products
// of one input become one. The float weights are let go where nothing else needs them.
PackedGraph PackLinears(torch::jit::Module& module, Compute compute);

struct FusedGraph {
  int64_t norms = 0, rotations = 0, gates = 0;
};

// RMS norms, rotary embeddings and SwiGLU gates become one operator each (ops/fused_ops.h).
FusedGraph FuseOperators(torch::jit::Module& module);

}  // namespace lmfusion
