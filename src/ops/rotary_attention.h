#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ops/tree_attention.h"

namespace lmfusion {

// Tree attention with what stands before it in a layer: heads of queries and keys normalised (RMS,
// as Qwen3 and Gemma 3 do; optional) and rotated (as lmfusion::rotate of fused_ops.h; optional),
// keys and values written straight to their slots. Registered as lmfusion::rotary_attention;
// float32 on the CPU.
struct HeadNorm {
  std::optional<at::Tensor> weight;  // [head_dim]; none: no norm
  double epsilon = 0;
};

// Heads of tokens, side by side in the columns of a product: [begin, begin + heads * head_dim) of
// rows [1, T, columns].
struct HeadColumns {
  at::Tensor rows;  // each dense; the same tensor for queries, keys and values, or not
  int64_t begin = 0;
};

struct RotaryAttentionArguments {
  HeadColumns queries, keys, values;
  int64_t query_heads = 0;
  HeadNorm query_norm, key_norm;
  std::optional<at::Tensor> cos, sin;  // T * n numbers, token by token; none: no rotation
  bool interleaved = false;
};

// `tree`: all but queries, keys and values. Returns [1, T, query_heads * head_dim].
at::Tensor RotaryAttention(const RotaryAttentionArguments& heads, TreeAttentionArguments tree);

}  // namespace lmfusion
