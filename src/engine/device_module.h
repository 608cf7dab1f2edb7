#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <memory>
#include <string>

#include "engine/stored_weights.h"
#include "ops/output_ops.h"

namespace lmfusion {

// A traced model made to run on a device: its forward, with the weights in place, and its output
// layer.
struct DeviceModule {
  // (tokens, positions, slots, tiles, keys, kv) -> hidden states; see PlanTensors.
  std::shared_ptr<torch::jit::GraphExecutor> forward;
  OutputLayer output;  // scale and softcap are not set
  int64_t weight_bytes = 0;
};

// Note [Narrow weights, wide sums]
// A bundle is traced in float32. For a narrower type only the matrices are rewritten: every linear
// layer becomes a product of narrow numbers that is summed and returned in float32, embeddings are
// looked up in narrow tables. Norms, residual sums and activations stay float32. That is more
// exact than a model converted as a whole, costs traffic of activations, which is small beside
// that of weights in small batches, and needs no second trace, in which the places where a model
// widens on purpose could not be told from those where it narrows again.
//
// Every matrix goes from the type it is stored in straight to that of the device, in pieces of
// rows, and is released on the host when its last reader has it: loading takes the file's own bytes
// on the host and the weights' final bytes on the device, and megabytes beside them.
//
// module: a tree bundle on the CPU, and its weights; both are used up. compute: "float32" or as in
// ops/narrow_weights.h.
DeviceModule MoveToDevice(const torch::jit::Module& module, StoredWeights& weights,
                          c10::Device device, Compute compute);

}  // namespace lmfusion
