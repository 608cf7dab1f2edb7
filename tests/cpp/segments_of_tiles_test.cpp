// Segments of each tile of tokens against a search through all of them, and how many steps it
// takes.

#include "kernels/attention/segments_of_tiles.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

namespace lmfusion {
namespace {

TEST(SegmentsOfTiles, AreThoseThatAnyTokenOfTheTileSees) {
  std::mt19937 random(5);
  for (const int64_t tokens : {1, 6, 7, 16, 100}) {
    std::vector<Segment> segments;
    for (int i = 0; i < 50; ++i) {
      const auto begin = static_cast<int32_t>(random() % tokens);
      // The last may be of padding alone.
      segments.push_back({i, i + 1, begin, begin + 1 + static_cast<int32_t>(random() % 40), 0});
    }
    for (const int64_t tile : {1, 6, 16}) {
      const SegmentsOfTiles lists(segments.data(), 50, tokens, tile);
      for (int64_t i = 0; i * tile < tokens; ++i) {
        const int64_t first = i * tile, last = std::min(tokens, first + tile);
        std::vector<const Segment*> wanted;
        for (const Segment& s : segments) {
          const int64_t end = std::min<int64_t>(s.token_end, tokens);
          if (s.token_begin < last && first < end) wanted.push_back(&s);
        }
        EXPECT_EQ(std::vector<const Segment*>(lists.begin(i), lists.begin(i + 1)), wanted)
            << tokens << " tokens by " << tile << ", tile " << i;
      }
    }
  }
}

// A trunk that all see, and a branch of each token.
TEST(SegmentsOfTiles, GrowWithTheTokens) {
  for (const int32_t tokens : {160, 1600, 16000}) {
    std::vector<Segment> segments{{0, 1000, 0, tokens, 0}};
    for (int32_t t = 0; t < tokens; ++t) segments.push_back({1000 + t, 1001 + t, t, t + 1, 1000});
    const SegmentsOfTiles lists(segments.data(), tokens + 1, tokens, 16);
    EXPECT_EQ(lists.size(), tokens + tokens / 16);
  }
}

}  // namespace
}  // namespace lmfusion
