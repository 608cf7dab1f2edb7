#pragma once

#include <cstdint>

#include "kernels/simd/instruction_set.h"

namespace lmfusion {

constexpr int kKeyTile = 64;  // keys scored before the running softmax is updated

// The running softmax of one query: its largest score, its sum of exponentials relative to that.
struct Softmax {
  float largest = -__builtin_inff();
  float sum = 0;
};

// Some tokens and a tile of keys that they may see, for the queries of one key/value head.
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
  int keys_in_tile;        // at most kKeyTile
  int64_t window;
  float scale, softcap;
  Softmax* softmax;  // [tokens][group]
};

struct AttentionKernels {
  void (*add_tile)(const KeyTile& tile);  // to the softmax and the outputs of its tokens
};
LMFUSION_KERNELS(AttentionKernels)

}  // namespace lmfusion
