// The operator against attention written out in float64, one token at a time.

#include "ops/tree_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <tuple>
#include <vector>

#include "tree/batch_plan.h"

namespace lmfusion {
namespace {

struct Settings {
  int64_t q_heads, kv_heads, head_dim, window;
  double softcap;
  bool sinks;
};

// A random tree whose nodes are filled batch by batch, and what each node's path holds.
class TreeOfTokens {
 public:
  TreeOfTokens(const Settings& settings, uint32_t seed)
      : settings_(settings), random_(seed), tree_(kSlots, 1, 1 << 30), root_(tree_.NewRoot()) {
    at::manual_seed(seed);
    kv_ = at::full({2, 2, kSlots, settings.kv_heads, settings.head_dim}, std::nan(""), at::kFloat);
    if (settings.sinks) sinks_ = at::randn({settings.q_heads});
  }

  void Grow(int count) {
    for (int i = 0; i < count; ++i) {
      const int32_t size = paths_.size();
      int32_t parent = size == 0 || random_() % 8 == 0 ? PinnedPaths::kRoot
                                                       : static_cast<int32_t>(random_() % size);
      if (size > 0 && random_() % 2 == 0) parent = size - 1;  // chains
      tree_.AcquireSlot(paths_.node(paths_.Add(root_, parent, size)));
    }
    const std::vector<int32_t> missing = MissingDepthFirst(tree_, paths_);
    ASSERT_EQ(missing.size(), static_cast<size_t>(count));
    for (size_t begin = 0; begin < missing.size(); begin += 37) {
      const size_t end = std::min(missing.size(), begin + 37);
      Run(PlanBatch(tree_, paths_, missing, begin, end),
          {missing.begin() + begin, missing.begin() + end});
    }
    for (const int32_t node : missing) tree_.MarkComputed(paths_.node(node));
  }

 private:
  static constexpr int64_t kSlots = 600;

  void Run(const BatchPlan& plan, const std::vector<int32_t>& nodes) {
    const int64_t tokens = plan.size();
    const at::Tensor q = at::randn({tokens, settings_.q_heads, settings_.head_dim});
    const at::Tensor k = at::randn({tokens, settings_.kv_heads, settings_.head_dim});
    const at::Tensor v = at::randn({tokens, settings_.kv_heads, settings_.head_dim});
    for (int64_t t = 0; t < tokens; ++t) {
      keys_.resize(std::max<size_t>(keys_.size(), nodes[t] + 1));
      values_.resize(keys_.size());
      keys_[nodes[t]] = k[t].to(at::kDouble);
      values_[nodes[t]] = v[t].to(at::kDouble);
    }
    TreeAttentionArguments a;
    a.queries = q;
    a.keys = k;
    a.values = v;
    a.sinks = sinks_;
    a.kv = kv_;
    a.positions = at::tensor(plan.positions, at::kLong);
    a.slots = at::tensor(plan.slots, at::kInt);
    std::vector<int32_t> segments;
    for (const BatchPlan::Segment& s : plan.segments) {
      segments.insert(segments.end(),
                      {s.key_begin, s.key_end, s.token_begin, s.token_end, s.first_position});
    }
    a.segments = at::tensor(segments, at::kInt).view({-1, 5});
    a.segment_slots = at::tensor(plan.segment_slots, at::kInt);
    a.layer = 1;
    a.scale = 0.3;
    a.window = settings_.window;
    a.softcap = settings_.softcap;
    const at::Tensor got = TreeAttentionCpu(a).to(at::kDouble);
    for (int64_t t = 0; t < tokens; ++t) {
      const at::Tensor wanted = Attend(q[t].to(at::kDouble), nodes[t]);
      ASSERT_LT((got[t] - wanted).abs().max().item<double>(), 1e-5);
    }
  }

  // One token sees its path, newest last, as far as the window lets it.
  at::Tensor Attend(const at::Tensor& query, int32_t node) const {
    std::vector<at::Tensor> keys, values;
    for (int32_t n = node; n != PinnedPaths::kRoot; n = paths_.parent(n)) {
      if (settings_.window > 0 && static_cast<int64_t>(keys.size()) == settings_.window) break;
      keys.push_back(keys_[n]);
      values.push_back(values_[n]);
    }
    const int64_t group = settings_.q_heads / settings_.kv_heads;
    const at::Tensor k = at::stack(keys, 1).repeat_interleave(group, 0);  // [q_heads, n, d]
    const at::Tensor v = at::stack(values, 1).repeat_interleave(group, 0);
    at::Tensor scores = at::matmul(k, query.unsqueeze(2)).squeeze(2) * 0.3;  // [q_heads, n]
    if (settings_.softcap > 0) scores = (scores / settings_.softcap).tanh() * settings_.softcap;
    if (sinks_) scores = at::cat({scores, sinks_->to(at::kDouble).unsqueeze(1)}, 1);
    const at::Tensor weights = scores.softmax(1).slice(1, 0, k.size(1));
    return at::matmul(weights.unsqueeze(1), v).squeeze(1);
  }

  const Settings settings_;
  std::mt19937 random_;
  TokenTree tree_;
  const NodeId root_;
  NodeNumbers numbers_;
  PinnedPaths paths_{tree_, numbers_};
  std::vector<at::Tensor> keys_, values_;  // by index among the paths, float64
  at::Tensor kv_;
  std::optional<at::Tensor> sinks_;
};

class TreeAttentionTest : public testing::TestWithParam<Settings> {};

TEST_P(TreeAttentionTest, EqualsFullAttention) {
  TreeOfTokens tree(GetParam(), 7);
  for (const int count : {1, 2, 90, 1, 15, 150, 40}) {
    tree.Grow(count);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, TreeAttentionTest,
    testing::Values(Settings{4, 4, 16, 0, 0, false}, Settings{9, 3, 64, 0, 0, false},
                    Settings{8, 1, 80, 0, 0, false}, Settings{2, 1, 96, 5, 0, false},
                    Settings{4, 2, 128, 1, 0, false}, Settings{4, 2, 256, 0, 5.0, false},
                    Settings{4, 2, 33, 12, 2.0, true}, Settings{6, 2, 64, 0, 0, true}));

}  // namespace
}  // namespace lmfusion
