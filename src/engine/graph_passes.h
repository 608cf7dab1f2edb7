#pragma once

#include <torch/csrc/jit/api/module.h>

#include <cstdint>

#include "bundle/stored_weights.h"
#include "ops/packed_linear.h"

namespace lmfusion {

// Passes over the graph of a model's method `forward`, before it runs for the first time. What
// they do not recognise stays as it was exported, and works.

struct PackedGraph {
  int64_t linears = 0;                      // products that are packed
  int64_t plain_linears = 0;                // products that are not, for whatever reason
  int64_t bytes = 0;                        // of all packed matrices
  c10::intrusive_ptr<PackedMatrix> output;  // of attribute output_weight (and output_bias)
};

// Every product with a weight of the model becomes lmfusion::linear over a packed matrix; products
// of one input become one. Embeddings become lmfusion::rows. A weight is released as soon as its
// last reader has it in packed form, so that little is held twice; what is not packed is widened.
// `weights`: of the same module.
PackedGraph PackLinears(torch::jit::Module& module, StoredWeights& weights, Compute compute);

// What stands between the products becomes one operator each: norms with their weights, activations
// with the product they are a gate of (ops/fused_ops.h), residuals with the product or the norm
// they are added to (lmfusion::linear_add), and all that a layer does with its queries, keys and
// values (ops/rotary_attention.h). After PackLinears. Returns how many such operators there are.
int64_t FuseOperators(torch::jit::Module& module);

// Parts of FuseOperators, each for all nodes of the graph.
// Conversions to float32 of what is float32 already go, and dropout, which is for training.
void DropCasts(torch::jit::Module& module);
// Splits and chunks of a product become slices of it; products of flattened rows take them as they
// are.
void SliceProducts(torch::jit::Module& module);
void FuseNorms(torch::jit::Module& module);
void FuseRotations(torch::jit::Module& module);
void FuseActivations(torch::jit::Module& module);
void FuseAttentions(torch::jit::Module& module);

}  // namespace lmfusion
