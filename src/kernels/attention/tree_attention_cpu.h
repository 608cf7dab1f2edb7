#pragma once

#include <cstdint>

#include "base/segment.h"

namespace lmfusion {

// Attention of a packed batch (Note [Tree attention]) in one layer; float32, all arrays dense.
struct TreeAttentionBatch {
  const float* queries = nullptr;  // [tokens, query_heads, head_dim]
  const float* sinks = nullptr;    // [query_heads] or null: a logit in every softmax, without value
  float* pool_keys = nullptr;      // [slots, kv_heads, head_dim], this layer's
  float* pool_values = nullptr;
  const int64_t* positions = nullptr;      // [tokens]
  const int32_t* slots = nullptr;          // [tokens], where each token's keys and values go
  const Segment* segments = nullptr;       // [segment_count]
  const int32_t* segment_slots = nullptr;  // every visible node once
  int64_t segment_count = 0;
  int64_t tokens = 0, query_heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;     // multiplies query . key
  int64_t window = 0;  // tokens; 0: unlimited
  float softcap = 0;   // s -> softcap * tanh(s / softcap); 0: none
};

// Writes keys and values [tokens, kv_heads, head_dim] to their slots.
void Scatter(const TreeAttentionBatch& batch, const float* keys, const float* values);

// Keys and values of the batch are in their slots. output: [tokens, query_heads, head_dim].
void Attend(const TreeAttentionBatch& batch, float* output);

}  // namespace lmfusion
