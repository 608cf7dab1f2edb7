#pragma once

#include <cstdint>

#include "kernels/attention/tree_attention_cpu.h"
#include "kernels/rows/rows.h"

namespace lmfusion {

// The heads of all tokens, side by side: a row of them every `stride` floats.
struct HeadRows {
  const float* data = nullptr;
  int64_t stride = 0;
};

// The norm of each head; without a weight there is none.
struct HeadNorm {
  RowNorm of_first;
  int64_t weight_step = 0;  // floats from one head's weights to the next one's; 0: one for all
};

// What stands before tree attention in a layer.
struct HeadRotations {
  HeadRows queries, keys, values;
  HeadNorm query_norm, key_norm;
  HeadRotation rotation;  // of the first token, those of the others behind; n 0: none
};

// Normalises and rotates heads: queries to `rotated` [tokens, query_heads, head_dim], keys and
// values straight to their slots.
void RotateToSlots(const HeadRotations& heads, const TreeAttentionBatch& batch, float* rotated);

}  // namespace lmfusion
