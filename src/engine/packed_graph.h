#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstdint>

#include "engine/stored_weights.h"
#include "ops/packed_linear.h"

namespace lmfusion {

// What has become of the graph of a model's method `forward`.
struct PackedGraph {
  int64_t linears = 0;                      // products that are packed
  int64_t plain_linears = 0;                // products that are not, for whatever reason
  int64_t fused_operators = 0;              // operators of lmfusion beside products and embeddings
  int64_t bytes = 0;                        // of all packed matrices
  c10::intrusive_ptr<PackedMatrix> output;  // of attribute output_weight (and output_bias)
};

// The only pass over an exported graph on the CPU, before it runs for the first time: products with
// a weight of the model read a packed matrix, and embeddings rows of one. All else stays as the
// exporter made it. A weight is released as soon as its last reader has it in packed form, so that
// little is held twice; what is not packed is widened. `weights`: of the same module.
PackedGraph PackWeightsOf(torch::jit::Module& module, StoredWeights& weights, Compute compute);

}  // namespace lmfusion
