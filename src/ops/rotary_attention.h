#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ops/tree_attention.h"

namespace lmfusion {

// Tree attention with what stands before it in a layer: heads of queries and keys normalised (RMS,
// as Qwen3 and Gemma 3 do; optional) and rotated (as rotate_half of fused_ops.h; optional), keys
// and values written straight to their slots. Registered as lmfusion::rotary_attention; float32 on
// the CPU.
struct HeadNorm {
  std::optional<at::Tensor> weight;  // [head_dim]; none: no norm
  double epsilon = 0;
};

struct RotaryAttentionArguments {
  at::Tensor queries;       // [1, T, query_heads * head_dim]; rows may be strided, as slices are
  at::Tensor keys, values;  // [1, T, kv_heads * head_dim]
  HeadNorm query_norm, key_norm;
  std::optional<at::Tensor> cos, sin;  // T * head_dim numbers, token by token; none: no rotation
};

// `tree`: all but queries, keys and values. Returns [1, T, query_heads * head_dim].
at::Tensor RotaryAttention(const RotaryAttentionArguments& heads, TreeAttentionArguments tree);

}  // namespace lmfusion
