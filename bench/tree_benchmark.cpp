// What the tree and its attention cost as the cache, the contexts and their branches grow; no
// torch:
//   tree_benchmark [--benchmark_filter=...]
// items_per_second counts tokens of the tree; of attention, keys that tokens see.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/attention/tree_attention_cpu.h"
#include "kernels/threads/parallel.h"
#include "tree/batch_plan.h"
#include "tree/pinned_paths.h"
#include "tree/token_tree.h"

namespace lmfusion {
namespace {

constexpr int32_t kTextTokens = 20;

// Texts of 20 tokens, most of which share a beginning with others; a new one pins, takes slots and
// evicts in a tree that is full.
class FullTree {
 public:
  explicit FullTree(int64_t slots) : tree_(slots, 1, int64_t{1} << 40) {
    while (tree_.evictions() == 0) Add();
  }
  void Add() {
    PinnedPaths paths(tree_, numbers_);
    int32_t last = PinnedPaths::kRoot;
    const auto shared = static_cast<int32_t>(random_() % 12);
    for (int32_t i = 0; i < kTextTokens; ++i) {
      last = paths.Add(root_, last, static_cast<int32_t>(i < shared ? i : random_() % 50000));
      const NodeId node = paths.node(last);
      if (tree_.slot(node) != kNoSlot) continue;
      tree_.AcquireSlot(node);
      tree_.MarkComputed(node);
    }
  }
  const TokenTree& tree() const { return tree_; }

 private:
  TokenTree tree_;
  NodeNumbers numbers_;
  std::mt19937 random_{1};
  const NodeId root_ = tree_.NewRoot();
};

// [nodes]: a text more in a full tree.
void EvictAndPin(benchmark::State& state) {
  FullTree full(state.range(0));
  for (auto _ : state) full.Add();
  state.SetItemsProcessed(state.iterations() * kTextTokens);
}
BENCHMARK(EvictAndPin)->RangeMultiplier(10)->Range(1000, 1000000);

// [nodes]: plans of 512 tokens of one call that misses all of its nodes.
void Plan(benchmark::State& state) {
  TokenTree tree(state.range(0), 1, int64_t{1} << 40);
  NodeNumbers numbers, visible_index;
  const NodeId root = tree.NewRoot();
  PinnedPaths paths(tree, numbers);
  std::mt19937 random(1);
  while (paths.size() < state.range(0)) {
    const auto parent = static_cast<int32_t>(
        paths.size() == 0 ? PinnedPaths::kRoot : static_cast<int32_t>(random() % paths.size()));
    tree.AcquireSlot(paths.node(paths.Add(root, parent, paths.size())));
  }
  const std::vector<int32_t> missing = MissingDepthFirst(tree, paths);
  constexpr size_t kBatch = 512;
  size_t begin = 0;
  for (auto _ : state) {
    const size_t end = std::min(missing.size(), begin + kBatch);
    benchmark::DoNotOptimize(PlanBatch(tree, paths, missing, begin, end, visible_index));
    begin = end == missing.size() ? 0 : end;
  }
  state.SetItemsProcessed(state.iterations() * kBatch);
}
BENCHMARK(Plan)->RangeMultiplier(10)->Range(1000, 1000000);

// [slots of the pool][positions][tokens][whether they branch]: tokens behind a context, three query
// heads of one key/value head of 64, on one thread. An item is a token and a key that it sees.
void Attention(benchmark::State& state) {
  const LoopThreads one(1);
  constexpr int64_t kHeads = 3, kKvHeads = 1, kDim = 64;
  const int64_t slots = state.range(0), context = state.range(1), tokens = state.range(2);
  std::vector<float> keys(slots * kKvHeads * kDim, 0.5f), values(keys);
  std::vector<float> queries(tokens * kHeads * kDim, 0.25f), output(queries.size());
  std::vector<int32_t> segment_slots(context + tokens);
  std::mt19937 random(1);
  for (int32_t& slot : segment_slots) slot = static_cast<int32_t>(random() % slots);
  // Token t branches from the context at its own position, or all from its end.
  const int64_t step = state.range(3) != 0 ? context / tokens : 0;
  std::vector<int64_t> positions(tokens);
  std::vector<Segment> segments;
  int64_t reads = 0;
  // The chain from one branching to the next is seen by those that branch after it.
  for (int64_t t = tokens - 1; t >= 0; --t) {
    const int64_t end = context - t * step, begin = t + 1 < tokens ? end - step : 0;
    if (begin >= end) continue;
    segments.push_back({static_cast<int32_t>(begin), static_cast<int32_t>(end), 0,
                        static_cast<int32_t>(t + 1), static_cast<int32_t>(begin)});
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t end = context - t * step;
    positions[t] = end;
    reads += end + 1;
    const auto leaf = static_cast<int32_t>(context + t), token = static_cast<int32_t>(t);
    segments.push_back({leaf, leaf + 1, token, token + 1, static_cast<int32_t>(end)});
  }
  TreeAttentionBatch batch;
  batch.queries = queries.data();
  batch.pool_keys = keys.data();
  batch.pool_values = values.data();
  batch.positions = positions.data();
  batch.segments = segments.data();
  batch.segment_slots = segment_slots.data();
  batch.segment_count = static_cast<int64_t>(segments.size());
  batch.tokens = tokens;
  batch.query_heads = kHeads;
  batch.kv_heads = kKvHeads;
  batch.head_dim = kDim;
  batch.scale = 0.125f;
  for (auto _ : state) {
    Attend(batch, output.data());
    benchmark::DoNotOptimize(output.data());
  }
  state.SetItemsProcessed(state.iterations() * reads);
  state.counters["keys"] = static_cast<double>(context + tokens);
}
BENCHMARK(Attention)
    ->ArgNames({"slots", "positions", "tokens", "branch"})
    ->ArgsProduct({{40000, 1000000}, {512, 2048, 8192, 32768}, {1, 16}, {0}})
    ->ArgsProduct({{40000}, {512, 2048, 8192, 32768}, {16, 512}, {1}});

}  // namespace
}  // namespace lmfusion

BENCHMARK_MAIN();
