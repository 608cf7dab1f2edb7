#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "kernels/attention/tree_attention_cpu.h"

namespace lmfusion {

// What the operators of tree attention (Note [Tree attention]) take beside queries, keys and
// values.
struct TreeArguments {
  std::optional<at::Tensor> sinks;  // [query_heads]: a logit in every softmax, without a value
  at::Tensor kv;                    // [layers, 2, slots, kv_heads, head_dim], written at `slots`
  at::Tensor positions;             // [T] int64
  at::Tensor slots;                 // [T] int32
  at::Tensor segments;              // [S, 5] int32: Segment; QueryTile where there are tiles
  at::Tensor segment_slots;         // [K] int32; [K, 4]: QueryKey, see Note [Query tiles]
  int64_t layer = 0;
  double scale = 1;    // multiplies query . key
  int64_t window = 0;  // tokens; 0: unlimited
  double softcap = 0;  // s -> softcap * tanh(s / softcap); 0: none
};

struct TreeAttentionArguments {
  at::Tensor queries;  // [T, query_heads, head_dim]
  at::Tensor keys;     // [T, kv_heads, head_dim]
  at::Tensor values;   // [T, kv_heads, head_dim]
  TreeArguments tree;
};

struct HeadShape {
  int64_t tokens, query_heads, kv_heads, head_dim;
};
// The arguments, checked: index tensors contiguous, and heads dense.
TreeArguments Checked(TreeArguments tree, const HeadShape& heads);
TreeAttentionArguments Checked(const TreeAttentionArguments& arguments);

// The checked arguments of a batch in float32 as the kernels of the CPU take them; without queries.
TreeAttentionBatch BatchOf(const TreeArguments& tree, const HeadShape& heads);

// Writes keys and values to their slots, then attends. Returns [T, query_heads, head_dim].
at::Tensor TreeAttentionCpu(const TreeAttentionArguments& arguments);

// lmfusion::tree_attention for a dispatch key, by a function of its checked arguments.
template <at::Tensor (*kAttend)(const TreeAttentionArguments&)>
at::Tensor TreeAttentionOperator(const at::Tensor& queries, const at::Tensor& keys,
                                 const at::Tensor& values, const std::optional<at::Tensor>& sinks,
                                 at::Tensor& kv, const at::Tensor& positions,
                                 const at::Tensor& slots, const at::Tensor& segments,
                                 const at::Tensor& segment_slots, int64_t layer, double scale,
                                 int64_t window, double softcap) {
  return kAttend(Checked(
      {queries,
       keys,
       values,
       {sinks, kv, positions, slots, segments, segment_slots, layer, scale, window, softcap}}));
}

}  // namespace lmfusion
