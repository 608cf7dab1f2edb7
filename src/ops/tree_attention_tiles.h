#pragma once

#include "kernels/attention/tree_attention_launch.h"
#include "ops/tree_attention.h"

namespace lmfusion {

// Arguments whose segments are query tiles (Note [Query tiles]) as the kernels take them.
// `output` and `parts` must live as long as the result is used; queries, keys and values may be
// strided in all dimensions but the last.
TiledAttention TilesOf(const TreeAttentionArguments& arguments, const at::Tensor& output,
                       at::Tensor* parts);

// The CUDA kernels' arithmetic on the host, for tests: slow.
at::Tensor TreeAttentionSerial(const TreeAttentionArguments& arguments);

}  // namespace lmfusion
