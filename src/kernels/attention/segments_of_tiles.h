#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/segment.h"

namespace lmfusion {

// Which segments the tokens of each tile (of `tile` tokens, the last may have fewer) see, in their
// order: made once a batch, with a step for each tile and for each segment that it sees.
class SegmentsOfTiles {
 public:
  SegmentsOfTiles(const Segment* segments, int64_t count, int64_t tokens, int64_t tile)
      : begin_((tokens + tile - 1) / tile + 1) {
    const auto for_tiles = [&](auto body) {
      for (int64_t s = 0; s < count; ++s) {
        const int64_t end = std::min<int64_t>(segments[s].token_end, tokens);
        for (int64_t i = segments[s].token_begin / tile; i * tile < end; ++i) body(i, s);
      }
    };
    for_tiles([&](int64_t i, int64_t) { ++begin_[i + 1]; });
    for (size_t i = 1; i < begin_.size(); ++i) begin_[i] += begin_[i - 1];
    seen_.resize(begin_.back());
    std::vector<int64_t> next = begin_;
    for_tiles([&](int64_t i, int64_t s) { seen_[next[i]++] = &segments[s]; });
  }

  // Those of tile i are [begin(i), begin(i + 1)).
  const Segment* const* begin(int64_t i) const { return seen_.data() + begin_[i]; }
  // Of all tiles together.
  int64_t size() const { return static_cast<int64_t>(seen_.size()); }

 private:
  std::vector<int64_t> begin_;
  std::vector<const Segment*> seen_;
};

}  // namespace lmfusion
