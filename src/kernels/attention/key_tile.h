#pragma once

#include <cstdint>

#include "kernels/simd/instruction_set.h"

namespace lmfusion {

// Keys whose weights are made at once: positions [i * kKeyStretch, (i + 1) * kKeyStretch) of a
// text. The softmax goes from stretch to stretch; within one, see Note [Same bits].
constexpr int kKeyStretch = 256;

// The running softmax of one query: its largest score, its sum of exponentials relative to that.
struct Softmax {
  float largest = -__builtin_inff();
  float sum = 0;
};

// Some tokens and keys of one stretch that they may see, for the queries of one key/value head.
struct KeyTile {
  const float* queries;  // of the first token and the head's first query, [.][dim]
  float* outputs;        // beside them
  int64_t query_stride;  // from token to token
  const float* keys;     // the head's part of the pool
  const float* values;
  int64_t key_stride;        // from slot to slot
  const int32_t* slots;      // of the keys
  const int64_t* positions;  // of the tokens
  int tokens, group, dim;
  int64_t first_position;  // of the first key; the others follow one by one
  int keys_in_tile;
  int64_t window;
  float*
      scores;  // [tokens][group][kKeyStretch], of the first token's first query and the first key
};

// The scores of a query with the keys of a stretch, of which it sees [begin, end).
struct QueryScores {
  float* scores;  // [kKeyStretch]
  int begin, end;
  float scale, softcap;
};

struct AttentionKernels {
  void (*multiply_keys)(const KeyTile& tile);  // query . key, to the scores
  // Scores become weights, relative to the softmax's largest score, which may change. Returns what
  // to multiply the query's output with.
  float (*weigh)(const QueryScores& query, Softmax* softmax);
  void (*add_values)(const KeyTile& tile);  // weight * value, to the outputs, key after key
};
LMFUSION_KERNELS(AttentionKernels)

}  // namespace lmfusion
