#pragma once

#include <torch/csrc/jit/api/module.h>

#include "model/stored_weights.h"
#include "ops/packed_linear.h"

namespace lmfusion {

// Passes over the graph of a model's method `forward`, before it runs for the first time. What
// they do not recognise stays as it was exported, and works.

struct PackedGraph {
  int64_t linears = 0;        // products that are packed
  int64_t plain_linears = 0;  // products that are not, for whatever reason
  int64_t bytes = 0;          // of all packed matrices
  c10::intrusive_ptr<PackedMatrix> output;  // of attribute output_weight (and output_bias)
};

// Every product with a weight of the model becomes lmfusion::linear over a packed matrix; products
// of one input become one. Embeddings become lmfusion::rows. A weight is released as soon as its
// last reader has it in packed form, so that little is held twice; what is not packed is widened.
// `weights`: of the same module.
PackedGraph PackLinears(torch::jit::Module& module, StoredWeights& weights, Compute compute);

struct FusedGraph {
  int64_t norms = 0, norm_weights = 0, rotations = 0, gates = 0, residuals = 0, attentions = 0;
};

// RMS norms, rotary embeddings, gates and residuals become one operator each (ops/fused_ops.h,
// lmfusion::linear_add), and what a layer does with its queries, keys and values one more
// (ops/rotary_attention.h).
FusedGraph FuseOperators(torch::jit::Module& module);

// Parts of FuseOperators.
// Conversions to float32 of what is float32 already go, and dropout, which is for training.
void DropCasts(torch::jit::Module& module);
// Whether `node` was a tree attention that became a rotary attention.
bool FuseAttention(torch::jit::Node* node);

}  // namespace lmfusion
