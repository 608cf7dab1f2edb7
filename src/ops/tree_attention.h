#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace lmfusion {

// Note [Tree attention]
// A packed batch holds T tokens of many texts, ordered depth first, so that the tokens below any
// node of the token tree are a range. The nodes that these tokens can see (their ancestors and
// themselves) are listed once each, as segments: chains of nodes that the same range sees. A
// segment is a row of five numbers:
//   key_begin, key_end      the nodes' slots are segment_slots[key_begin, key_end)
//   token_begin, token_end  the tokens of this batch that lie below (or in) the chain
//   first_position          position of the first node; the others follow one by one
// A token at position t sees a key at position p of its segments where p <= t and, in a layer with
// a sliding window, t - p < window. The first rule matters only where a chain holds tokens of the
// batch itself: those come before some tokens of their own range.
// Every shared ancestor is thus named once, whatever the number of tokens that see it.
struct TreeAttentionArguments {
  at::Tensor queries;               // [T, query_heads, head_dim]
  at::Tensor keys;                  // [T, kv_heads, head_dim]
  at::Tensor values;                // [T, kv_heads, head_dim]
  std::optional<at::Tensor> sinks;  // [query_heads]: a logit in every softmax, without a value
  at::Tensor kv;                    // [layers, 2, slots, kv_heads, head_dim], written at `slots`
  at::Tensor positions;             // [T] int64
  at::Tensor slots;                 // [T] int32
  at::Tensor segments;              // [S, 5] int32
  at::Tensor
      segment_slots;  // [K] int32; [K, 4]: query blocks, see kernels/attention/query_blocks.h
  int64_t layer = 0;
  double scale = 1;    // multiplies query . key
  int64_t window = 0;  // tokens; 0: unlimited
  double softcap = 0;  // s -> softcap * tanh(s / softcap); 0: none
};

// Writes keys and values to their slots, then attends. Returns [T, query_heads, head_dim].
at::Tensor TreeAttentionCpu(const TreeAttentionArguments& arguments);

// Attends only: keys and values of the batch are in their slots, and the arguments' own are not
// looked at. output: [T, query_heads, head_dim].
void AttendCpu(const TreeAttentionArguments& arguments, float* output);

struct HeadShape {
  int64_t tokens, query_heads, kv_heads, head_dim;
};
// All arguments but queries, keys and values, checked: index tensors contiguous.
TreeAttentionArguments CheckedTreeBatch(const HeadShape& heads,
                                        const std::optional<at::Tensor>& sinks, at::Tensor& kv,
                                        const at::Tensor& positions, const at::Tensor& slots,
                                        const at::Tensor& segments, const at::Tensor& segment_slots,
                                        int64_t layer, double scale, int64_t window,
                                        double softcap);

// The arguments of the operator, checked: heads dense, index tensors contiguous.
TreeAttentionArguments CheckedTreeAttention(const at::Tensor& queries, const at::Tensor& keys,
                                            const at::Tensor& values,
                                            const std::optional<at::Tensor>& sinks, at::Tensor& kv,
                                            const at::Tensor& positions, const at::Tensor& slots,
                                            const at::Tensor& segments,
                                            const at::Tensor& segment_slots, int64_t layer,
                                            double scale, int64_t window, double softcap);

}  // namespace lmfusion
