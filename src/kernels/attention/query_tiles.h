#pragma once

#include <cstdint>
#include <vector>

#include "base/segment.h"
#include "kernels/device/host_device.h"

namespace lmfusion {

// Note [Query tiles]
// What tree attention reads on a CUDA device, made on the host from the segments of Note [Tree
// attention], once a forward pass for all layers. The tokens of a batch are cut into tiles of
// neighbours; depth-first order makes neighbours share nearly all of their ancestors. A tile
// lists every key that any of its tokens sees once, so that a thread block reads it once for all
// its queries and all query heads of a key/value head. Segments are dissolved: the short ones
// near the leaves fill the same tiles of keys as the long common trunk, and the tiles are dense
// enough for matrix instructions. The price is that the trunk is read once a tile of tokens
// instead of once; the tiles of one moment find it in the second-level cache. A thread block a
// segment would read every key once, but writes and merges a partial result for each token and
// branching, which is more traffic than the keys of the contexts this library is for.
//
// Where a batch has too few tiles to fill the device, the keys of a tile are cut into parts,
// whose results a second kernel merges.
//
// In place of segments, the operator gets on such a device:
//   segments       [W, 5] int32, a QueryTile each; those of no tokens are padding
//   segment_slots  [K, 4] int32, the keys of all tiles (QueryKey)
struct QueryTile {
  int32_t token_begin, token_end;
  int32_t key_begin, key_end;  // its keys; key_begin -1: a merge of key_end parts from `part` on
  int32_t part;                // where the result goes; -1: it is the whole result
};
struct QueryKey {
  int32_t slot, position;
  int32_t token_begin, token_end;  // the tokens below
};

constexpr int kTileRows = 64;  // queries (tokens x query heads of one key/value head) of a tile
// Tiles (of one key/value head) of a batch whose keys are cut into parts, at most. Bounds the
// memory of partial results.
constexpr int kMaxSplitTiles = 2048;

// Tokens of a tile, for this many query heads a key/value head.
LMFUSION_HOST_DEVICE int TileTokens(int group) {
  return group >= kTileRows ? 1 : kTileRows / group;
}

struct QueryTiles {
  std::vector<QueryTile> tiles;
  std::vector<QueryKey> keys;
};

struct QueryTileOptions {
  int group = 1;  // query heads a key/value head
  int kv_heads = 1;
  // Thread blocks that fill the device; the keys of a tile are cut into parts below that.
  int wanted_tiles = 264;
  int min_part_keys = 128;
};

// segments: [S], segment_slots: [K], positions: [tokens], as BatchPlan holds them. Tokens from
// `tokens` to `padded_tokens` see nothing; their result is zero.
QueryTiles TileQueries(const Segment* segments, int64_t segment_count, const int32_t* segment_slots,
                       const int64_t* positions, int64_t tokens, int64_t padded_tokens,
                       const QueryTileOptions& options);

}  // namespace lmfusion
