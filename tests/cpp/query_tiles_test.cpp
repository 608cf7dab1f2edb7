// The CUDA kernels of tree attention, run tile by tile on the host, against plain attention
// along every token's path in float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "kernels/attention/query_tiles.h"
#include "kernels/attention/tree_attention_launch.h"
#include "tree/batch_plan.h"

namespace lmfusion {
namespace {

struct Shape {
  int q_heads, kv_heads, head_dim;
  int window = 0;
  float softcap = 0;
  bool sinks = false;
  NumberType pool = NumberType::kFloat32;
  NumberType activation = NumberType::kFloat32;
  bool matrix = false;
  int wanted_tiles = 0;  // below the number of tiles: nothing is split
  int padding = 0;       // tokens
};

// A random tree of which some nodes are computed already.
struct Tree {
  TokenTree tree{4096, 1, int64_t{1} << 30};
  NodeNumbers numbers;
  PinnedPaths paths{tree, numbers};
  std::vector<int32_t> missing;
  int64_t slots = 0;
};

void Grow(int paths, int length, unsigned seed, Tree* result) {
  std::mt19937 random(seed);
  TokenTree& tree = result->tree;
  const NodeId root = tree.NewRoot();
  std::vector<std::vector<int32_t>> texts;
  for (int p = 0; p < paths; ++p) {
    std::vector<int32_t> text;
    if (!texts.empty()) {
      const auto& other = texts[random() % texts.size()];
      text = other;
      text.resize(random() % (other.size() + 1));
    }
    const size_t size = 1 + random() % length;
    while (text.size() < size) text.push_back(static_cast<int32_t>(random() % 5));
    texts.push_back(text);
  }
  for (size_t p = 0; p < texts.size(); ++p) {
    int32_t index = PinnedPaths::kRoot;
    for (const int32_t token : texts[p]) {
      index = result->paths.Add(root, index, token);
      const NodeId node = result->paths.node(index);
      if (tree.slot(node) != kNoSlot) continue;
      ASSERT_TRUE(tree.AcquireSlot(node));
      if (p < texts.size() / 2) tree.MarkComputed(node);
    }
  }
  result->missing = MissingDepthFirst(tree, result->paths);
  result->slots = tree.slots_in_use();
}

std::vector<float> Random(int64_t size, std::mt19937* random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(size);
  for (float& value : values) value = normal(*random);
  return values;
}

// The same numbers in another type, and what they become by it.
std::vector<uint8_t> Stored(NumberType type, std::vector<float>* values) {
  std::vector<uint8_t> bytes(values->size() * Bytes(type) + 16);
  for (size_t i = 0; i < values->size(); ++i) {
    StoreNumber(bytes.data(), type, i, (*values)[i]);
    (*values)[i] = LoadNumber(bytes.data(), type, i);
  }
  return bytes;
}

double LargestDifference(const Shape& s, int paths, int length, size_t begin, size_t end) {
  Tree grown;
  Grow(paths, length, 7, &grown);
  std::mt19937 random(3);
  for (size_t i = 0; i < begin; ++i) {
    grown.tree.MarkComputed(grown.paths.node(grown.missing[i]));
  }
  end = std::min(end, grown.missing.size());
  NodeNumbers visible_index;
  const BatchPlan plan =
      PlanBatch(grown.tree, grown.paths, grown.missing, begin, end, visible_index);
  const int64_t tokens = plan.size(), padded = tokens + s.padding, slots = grown.slots + 1;
  const int64_t width = s.kv_heads * s.head_dim;
  std::vector<float> queries = Random(padded * s.q_heads * s.head_dim, &random);
  std::vector<float> keys = Random(padded * width, &random),
                     values = Random(padded * width, &random);
  std::vector<float> pool_keys = Random(slots * width, &random);
  std::vector<float> pool_values = Random(slots * width, &random);
  const std::vector<float> sinks = Random(s.q_heads, &random);

  if (s.matrix) {  // queries are rounded before they are multiplied
    const bool half = s.pool == NumberType::kFloat16;
    Stored(half ? NumberType::kFloat16 : NumberType::kBFloat16, &queries);
  }

  TiledAttention a;
  const auto q = Stored(s.activation, &queries), k = Stored(s.activation, &keys),
             v = Stored(s.activation, &values);
  auto pk = Stored(s.pool, &pool_keys), pv = Stored(s.pool, &pool_values);
  std::vector<uint8_t> output(padded * s.q_heads * s.head_dim * 4, 0xff);
  std::vector<int64_t> positions = plan.positions;
  std::vector<int32_t> token_slots = plan.slots;
  positions.resize(padded, 0);
  token_slots.resize(padded, static_cast<int32_t>(grown.slots));
  QueryTileOptions options;
  options.group = s.q_heads / s.kv_heads;
  options.kv_heads = s.kv_heads;
  options.wanted_tiles = s.wanted_tiles;
  options.min_part_keys = 8;
  QueryTiles tiles =
      TileQueries(plan.segments.data(), plan.segments.size(), plan.segment_slots.data(),
                  positions.data(), tokens, padded, options);
  if (s.wanted_tiles > 0) {
    bool split = false;
    for (const QueryTile& tile : tiles.tiles) split |= tile.part >= 0;
    EXPECT_TRUE(split);
  }
  tiles.tiles.push_back({0, 0, 0, 0, -1});  // padding
  a.queries = {q.data(), s.q_heads * s.head_dim, s.head_dim};
  a.keys = {k.data(), width, s.head_dim};
  a.values = {v.data(), width, s.head_dim};
  a.activation = s.activation;
  a.sinks = s.sinks ? sinks.data() : nullptr;
  a.pool_keys = pk.data();
  a.pool_values = pv.data();
  a.pool = s.pool;
  a.positions = positions.data();
  a.slots = token_slots.data();
  a.tiles = tiles.tiles.data();
  a.tile_keys = tiles.keys.data();
  a.output = output.data();
  a.tokens = static_cast<int32_t>(padded);
  a.query_heads = s.q_heads;
  a.kv_heads = s.kv_heads;
  a.head_dim = s.head_dim;
  a.tile_count = static_cast<int32_t>(tiles.tiles.size());
  a.scale = 0.2f;
  a.window = s.window;
  a.softcap = s.softcap;
  std::vector<uint8_t> parts(PartBytes(a));
  SetParts(parts.data(), &a);
  EXPECT_TRUE(!s.matrix || FitsMatrixAttention(a));
  RunTreeAttentionSerially(a, s.matrix);

  // The oracle sees paths, not segments.
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < width; ++i) {
      std::vector<float> one = {keys[t * width + i], values[t * width + i]};
      Stored(s.pool, &one);
      pool_keys[plan.slots[t] * width + i] = one[0];
      pool_values[plan.slots[t] * width + i] = one[1];
    }
  }
  double largest = 0;
  for (int64_t t = 0; t < padded; ++t) {
    std::vector<SlotId> path;
    if (t < tokens) {
      NodeId node = grown.paths.node(grown.missing[begin + t]);
      for (; !grown.tree.is_root(node); node = grown.tree.parent(node)) {
        path.push_back(grown.tree.slot(node));
        if (s.window > 0 && static_cast<int>(path.size()) == s.window) break;
      }
    }
    for (int h = 0; h < s.q_heads; ++h) {
      const int64_t kv = h / (s.q_heads / s.kv_heads) * s.head_dim;
      const float* query = &queries[(t * s.q_heads + h) * s.head_dim];
      std::vector<double> result(s.head_dim, 0.0);
      double sum = s.sinks && !path.empty() ? std::exp(sinks[h]) : 0;
      for (const SlotId slot : path) {
        double score = 0;
        for (int d = 0; d < s.head_dim; ++d) score += query[d] * pool_keys[slot * width + kv + d];
        score *= 0.2f;
        if (s.softcap > 0) score = s.softcap * std::tanh(score / s.softcap);
        sum += std::exp(score);
        for (int d = 0; d < s.head_dim; ++d) {
          result[d] += std::exp(score) * pool_values[slot * width + kv + d];
        }
      }
      for (int d = 0; d < s.head_dim; ++d) {
        const double wanted = sum > 0 ? result[d] / sum : 0;
        const float got =
            LoadNumber(output.data(), s.activation, (t * s.q_heads + h) * s.head_dim + d);
        if (!std::isfinite(got)) return 1e9;
        largest = std::max(largest, std::abs(wanted - got));
      }
    }
  }
  return largest;
}

constexpr double kFloat32 = 1e-5;
// Weights are rounded to 8 bits before the product with the values (normal, of size 1 to 4).
constexpr double kMatrix = 8e-3;

TEST(PlainAttention, EveryHeadSizeAndGroup) {
  for (const int dim : {12, 64, 80, 96, 128, 256, 300}) {
    for (const int group : {1, 3, 4, 70}) {
      Shape s{2 * group, 2, dim};
      if (dim > 128 && group == 70) continue;
      EXPECT_LT(LargestDifference(s, 40, 12, 0, 1000), kFloat32) << dim << " " << group;
    }
  }
}

TEST(PlainAttention, WindowSoftcapSinksPadding) {
  Shape s{6, 2, 16};
  s.window = 5;
  s.softcap = 1.5f;
  s.sinks = true;
  s.padding = 37;
  EXPECT_LT(LargestDifference(s, 60, 30, 0, 1000), kFloat32);
}

TEST(PlainAttention, BatchesInTheMiddle) {
  Shape s{4, 2, 16};
  EXPECT_LT(LargestDifference(s, 60, 30, 17, 100), kFloat32);
  EXPECT_LT(LargestDifference(s, 60, 30, 100, 101), kFloat32);
}

TEST(PlainAttention, SplitKeysAreMerged) {
  for (const int window : {0, 4}) {
    Shape s{4, 2, 16};
    s.wanted_tiles = 120;
    s.sinks = true;
    s.window = window;
    EXPECT_LT(LargestDifference(s, 20, 80, 0, 1000), kFloat32);
  }
}

TEST(PlainAttention, PaddingIsNotSplitBesideKeysThatAre) {
  Shape s{4, 2, 16};
  s.wanted_tiles = 120;
  s.padding = 70;  // two tiles, the last of padding alone
  EXPECT_LT(LargestDifference(s, 20, 80, 0, 1000), kFloat32);
}

TEST(PlainAttention, NarrowPools) {
  for (const auto pool : {NumberType::kFloat16, NumberType::kBFloat16, NumberType::kFloat8}) {
    Shape s{4, 2, 64};
    s.pool = pool;
    EXPECT_LT(LargestDifference(s, 40, 20, 0, 1000), kFloat32);  // the oracle reads what is stored
  }
}

TEST(MatrixAttention, EveryHeadSizeGroupAndType) {
  for (const int dim : {64, 80, 96, 128, 256}) {
    for (const int group : {1, 3, 4, 70}) {
      for (const auto pool : {NumberType::kFloat16, NumberType::kBFloat16, NumberType::kFloat8}) {
        Shape s{2 * group, 2, dim};
        if (group == 70 && dim > 64) continue;
        s.pool = pool;
        s.matrix = true;
        EXPECT_LT(LargestDifference(s, 24, 14, 0, 1000), kMatrix) << dim << " " << group;
      }
    }
  }
}

TEST(MatrixAttention, ManyKeysWindowSoftcapSinksPadding) {
  Shape s{4, 2, 64};
  s.pool = s.activation = NumberType::kBFloat16;
  s.window = 70;
  s.softcap = 1.5f;
  s.sinks = true;
  s.padding = 37;
  s.matrix = true;
  EXPECT_LT(LargestDifference(s, 30, 150, 0, 400), kMatrix);
}

TEST(MatrixAttention, SplitKeysAreMerged) {
  Shape s{4, 2, 80};
  s.pool = NumberType::kFloat16;
  s.matrix = true;
  s.sinks = true;
  s.wanted_tiles = 120;
  EXPECT_LT(LargestDifference(s, 20, 80, 0, 1000), kMatrix);
}

TEST(QueryTiles, CommonPrefixIsListedOnceABlock) {
  // 256 tokens below a trunk of 100 nodes: 4 tiles of 64 tokens list it 4 times, not 256.
  std::vector<Segment> segments = {{0, 100, 0, 256, 0}};
  std::vector<int32_t> slots;
  std::vector<int64_t> positions;
  for (int i = 0; i < 100; ++i) slots.push_back(i);
  for (int t = 0; t < 256; ++t) {
    segments.push_back({100 + t, 101 + t, t, t + 1, 100});
    slots.push_back(100 + t);
    positions.push_back(100);
  }
  QueryTileOptions options;
  options.wanted_tiles = 0;
  const QueryTiles tiles =
      TileQueries(segments.data(), 257, slots.data(), positions.data(), 256, 256, options);
  EXPECT_EQ(tiles.tiles.size(), 4u);
  EXPECT_EQ(tiles.keys.size(), 4u * (100 + 64));
}

TEST(QueryTiles, NoTokensHaveNone) {
  const QueryTiles tiles = TileQueries(nullptr, 0, nullptr, nullptr, 0, 0, {});
  EXPECT_TRUE(tiles.tiles.empty());
  EXPECT_TRUE(tiles.keys.empty());
}

// Tokens [0, 64) see ten keys, [64, 128) five thousand, and [128, 192) are padding.
TEST(QueryTiles, OnlyLongKeysAreCut) {
  const std::vector<Segment> segments = {{0, 10, 0, 64, 0}, {10, 5010, 64, 128, 0}};
  const std::vector<int32_t> slots(5010, 0);
  std::vector<int64_t> positions(192, 9);
  std::fill(positions.begin() + 64, positions.end(), 4999);
  const QueryTiles tiles =
      TileQueries(segments.data(), 2, slots.data(), positions.data(), 128, 192, {});
  ASSERT_EQ(tiles.keys.size(), 5010u);
  std::vector<int> seen(5010, 0), results;
  int whole = 0, merges = 0;
  for (const QueryTile& tile : tiles.tiles) {
    if (tile.key_begin < 0) {
      ++merges;
      EXPECT_EQ(tile.token_begin, 64);
      EXPECT_EQ(tile.key_end, static_cast<int32_t>(results.size()));  // all parts, from the first
      EXPECT_EQ(tile.part, 0);
      continue;
    }
    if (tile.part < 0) {
      ++whole;
      EXPECT_EQ(tile.key_end - tile.key_begin, tile.token_begin == 0 ? 10 : 0);
    } else {
      EXPECT_EQ(tile.token_begin, 64);
      EXPECT_EQ(tile.part, static_cast<int32_t>(results.size()));
      results.push_back(tile.part);
    }
    for (int32_t key = tile.key_begin; key < tile.key_end; ++key) ++seen[key];
  }
  EXPECT_EQ(whole, 2);
  EXPECT_EQ(merges, 1);
  EXPECT_GT(results.size(), 1u);
  EXPECT_EQ(seen, std::vector<int>(5010, 1));
}

// Fewer tiles than wanted, but no room for two parts of each: of wanted tiles among as many heads,
// or of partial results.
TEST(QueryTiles, NothingIsCutInFewerPartsThanTiles) {
  for (const auto& [kv_heads, tokens, wanted] : {std::tuple{200, 64, 264}, {8, 64 * 60, 10000}}) {
    const Segment segment = {0, 5000, 0, tokens, 0};
    const std::vector<int32_t> slots(5000, 0);
    const std::vector<int64_t> positions(tokens, 4999);
    QueryTileOptions options;
    options.kv_heads = kv_heads;
    options.wanted_tiles = wanted;
    ASSERT_LT(tokens / 64 * kv_heads, wanted);
    const QueryTiles tiles =
        TileQueries(&segment, 1, slots.data(), positions.data(), tokens, tokens, options);
    EXPECT_EQ(tiles.tiles.size(), static_cast<size_t>(tokens / 64));
    for (const QueryTile& tile : tiles.tiles) EXPECT_EQ(tile.part, -1);
  }
}

// A tile has 64 queries at most; of each a value a dimension, a maximum and a sum, in float32.
TEST(PartBytes, AreNoneBeyondTheMostTilesThatAreSplit) {
  TiledAttention a;
  a.query_heads = 8;
  a.kv_heads = 2;
  a.head_dim = 80;
  a.tile_count = kMaxSplitTiles / 2;
  EXPECT_EQ(PartBytes(a), int64_t{kMaxSplitTiles} * 64 * 82 * 4);
  ++a.tile_count;
  EXPECT_EQ(PartBytes(a), 0);
}

TEST(MatrixAttention, FitsSomeHeadSizesOfNarrowPools) {
  const std::set<int> sizes = {64, 80, 96, 128, 256};
  for (const auto pool :
       {NumberType::kFloat32, NumberType::kFloat16, NumberType::kBFloat16, NumberType::kFloat8}) {
    for (int size = 1; size <= 512; ++size) {
      TiledAttention a;
      a.pool = pool;
      a.head_dim = size;
      EXPECT_EQ(FitsMatrixAttention(a), pool != NumberType::kFloat32 && sizes.count(size) == 1)
          << size;
    }
  }
}

TEST(QueryTiles, SplitStaysWithinItsBound) {
  for (const int kv_heads : {1, 2, 8, 32, 300}) {
    for (const int tokens : {1, 16, 300}) {
      const Segment segment = {0, 5000, 0, tokens, 0};
      const std::vector<int32_t> slots(5000, 0);
      std::vector<int64_t> positions(tokens, 4999);
      QueryTileOptions options;
      options.group = 4;
      options.kv_heads = kv_heads;
      const QueryTiles tiles =
          TileQueries(&segment, 1, slots.data(), positions.data(), tokens, tokens, options);
      bool split = false;
      for (const QueryTile& tile : tiles.tiles) split |= tile.part >= 0;
      if (split) {
        EXPECT_LE(2 * tiles.tiles.size() * kv_heads, static_cast<size_t>(kMaxSplitTiles));
      }
      EXPECT_EQ(split, kv_heads <= 32 && !(kv_heads == 32 && tokens == 300))
          << kv_heads << " " << tokens;
    }
  }
}

}  // namespace
}  // namespace lmfusion
