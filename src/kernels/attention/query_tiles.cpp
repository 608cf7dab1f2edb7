#include "kernels/attention/query_tiles.h"

#include <algorithm>

namespace lmfusion {
namespace {

// The keys of `segment` that a token of [begin, end) may see: those not after all of them.
void AddKeys(const Segment& segment, const int32_t* slots, const int64_t* positions, int32_t begin,
             int32_t end, std::vector<QueryKey>* keys) {
  int64_t last_position = -1;
  for (int32_t t = std::max(begin, segment.token_begin); t < std::min(end, segment.token_end);
       ++t) {
    last_position = std::max(last_position, positions[t]);
  }
  const int32_t shift = segment.first_position - segment.key_begin;
  const int32_t key_end =
      static_cast<int32_t>(std::min<int64_t>(segment.key_end, last_position + 1 - shift));
  for (int32_t key = segment.key_begin; key < key_end; ++key) {
    keys->push_back({slots[key], key + shift, segment.token_begin, segment.token_end});
  }
}

// Cuts the keys of every tile into parts so that there are about options.wanted_tiles of
// them.
void Split(const QueryTileOptions& options, std::vector<QueryTile>* tiles) {
  const int64_t count = static_cast<int64_t>(tiles->size());
  if (count * options.kv_heads >= options.wanted_tiles) return;
  int64_t keys = 0;
  for (const QueryTile& tile : *tiles) keys += tile.key_end - tile.key_begin;
  // Rows: the parts and one merge a tile, all within kMaxSplitTiles with twice the room.
  const int64_t most = kMaxSplitTiles / (2 * options.kv_heads) - 2 * count;
  const int64_t wanted_parts = std::min<int64_t>(options.wanted_tiles / options.kv_heads, most);
  if (wanted_parts <= count) return;
  const int64_t size =
      std::max<int64_t>(options.min_part_keys, (keys + wanted_parts - 1) / wanted_parts);
  std::vector<QueryTile> cut, merges;
  int32_t part = 0;
  for (const QueryTile& tile : *tiles) {
    const int64_t parts = (tile.key_end - tile.key_begin + size - 1) / size;
    if (parts <= 1) {
      cut.push_back(tile);
      continue;
    }
    merges.push_back({tile.token_begin, tile.token_end, -1, static_cast<int32_t>(parts), part});
    for (int64_t key = tile.key_begin; key < tile.key_end; key += size) {
      cut.push_back({tile.token_begin, tile.token_end, static_cast<int32_t>(key),
                     static_cast<int32_t>(std::min<int64_t>(tile.key_end, key + size)), part++});
    }
  }
  cut.insert(cut.end(), merges.begin(), merges.end());
  *tiles = std::move(cut);
}

}  // namespace

QueryTiles TileQueries(const Segment* segments, int64_t segment_count, const int32_t* segment_slots,
                       const int64_t* positions, int64_t tokens, int64_t padded_tokens,
                       const QueryTileOptions& options) {
  QueryTiles result;
  const int32_t size = TileTokens(options.group);
  // Segments begin in the order of their tokens: a sweep meets each once.
  std::vector<int64_t> open;
  int64_t next = 0;
  for (int64_t first = 0; first < padded_tokens; first += size) {
    const auto begin = static_cast<int32_t>(first);
    const auto end = static_cast<int32_t>(std::min<int64_t>(padded_tokens, first + size));
    const auto real_end = static_cast<int32_t>(std::min<int64_t>(end, tokens));
    open.erase(std::remove_if(open.begin(), open.end(),
                              [&](int64_t s) { return segments[s].token_end <= begin; }),
               open.end());
    for (; next < segment_count && segments[next].token_begin < real_end; ++next)
      open.push_back(next);
    const auto key_begin = static_cast<int32_t>(result.keys.size());
    for (const int64_t s : open) {
      AddKeys(segments[s], segment_slots, positions, begin, real_end, &result.keys);
    }
    result.tiles.push_back({begin, end, key_begin, static_cast<int32_t>(result.keys.size()), -1});
  }
  Split(options, &result.tiles);
  return result;
}

}  // namespace lmfusion
