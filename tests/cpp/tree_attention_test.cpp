// Attention over random trees against attention written out in float64, one token at a time.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "every_instruction_set.h"
#include "kernels/attention/tree_attention_cpu.h"
#include "tree/batch_plan.h"

namespace lmfusion {
namespace {

using Floats = std::vector<float>;

struct Settings {
  int64_t q_heads, kv_heads, head_dim, window;
  float softcap;
  bool sinks;
};

// A random tree whose nodes are filled batch by batch, and what each node's path holds.
class TreeOfTokens {
 public:
  TreeOfTokens(const Settings& settings, uint32_t seed)
      : settings_(settings), random_(seed), tree_(kSlots, 1, 1 << 30), root_(tree_.NewRoot()) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    pool_keys_.assign(kSlots * KvWidth(), nan);
    pool_values_.assign(kSlots * KvWidth(), nan);
    if (settings.sinks) sinks_ = Normal(settings.q_heads);
  }

  // Of ten tokens, about `chained` are put behind the one before.
  void Grow(int count, uint32_t chained = 5) {
    for (int i = 0; i < count; ++i) {
      const int32_t size = paths_.size();
      int32_t parent = size == 0 || random_() % 8 == 0 ? PinnedPaths::kRoot
                                                       : static_cast<int32_t>(random_() % size);
      if (size > 0 && random_() % 10 < chained) parent = size - 1;
      tree_.AcquireSlot(paths_.node(paths_.Add(root_, parent, size)));
    }
    const std::vector<int32_t> missing = MissingDepthFirst(tree_, paths_);
    ASSERT_EQ(missing.size(), static_cast<size_t>(count));
    for (size_t begin = 0; begin < missing.size(); begin += 37) {
      const size_t end = std::min(missing.size(), begin + 37);
      Run(PlanBatch(tree_, paths_, missing, begin, end, visible_index_),
          {missing.begin() + begin, missing.begin() + end});
    }
    for (const int32_t node : missing) tree_.MarkComputed(paths_.node(node));
  }

 private:
  static constexpr int64_t kSlots = 600;
  static constexpr double kScale = 0.3;

  int64_t KvWidth() const { return settings_.kv_heads * settings_.head_dim; }
  int64_t Width() const { return settings_.q_heads * settings_.head_dim; }

  Floats Normal(int64_t size) {
    std::normal_distribution<float> normal;
    Floats values(size);
    for (float& value : values) value = normal(random_);
    return values;
  }

  void Run(const BatchPlan& plan, const std::vector<int32_t>& nodes) {
    const int64_t tokens = plan.size();
    const Floats q = Normal(tokens * Width());
    const Floats k = Normal(tokens * KvWidth()), v = Normal(tokens * KvWidth());
    for (int64_t t = 0; t < tokens; ++t) {
      keys_.resize(std::max<size_t>(keys_.size(), nodes[t] + 1));
      values_.resize(keys_.size());
      keys_[nodes[t]].assign(&k[t * KvWidth()], &k[t * KvWidth()] + KvWidth());
      values_[nodes[t]].assign(&v[t * KvWidth()], &v[t * KvWidth()] + KvWidth());
    }
    TreeAttentionBatch batch;
    batch.queries = q.data();
    batch.sinks = settings_.sinks ? sinks_.data() : nullptr;
    batch.pool_keys = pool_keys_.data();
    batch.pool_values = pool_values_.data();
    batch.positions = plan.positions.data();
    batch.slots = plan.slots.data();
    batch.segments = plan.segments.data();
    batch.segment_slots = plan.segment_slots.data();
    batch.segment_count = static_cast<int64_t>(plan.segments.size());
    batch.tokens = tokens;
    batch.query_heads = settings_.q_heads;
    batch.kv_heads = settings_.kv_heads;
    batch.head_dim = settings_.head_dim;
    batch.scale = static_cast<float>(kScale);
    batch.window = settings_.window;
    batch.softcap = settings_.softcap;
    Floats got(tokens * Width());
    Scatter(batch, k.data(), v.data());
    Attend(batch, got.data());
    for (int64_t t = 0; t < tokens; ++t) ExpectSameAlone(batch, t, nodes[t], got);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t head = 0; head < settings_.q_heads; ++head) {
        const int64_t at = t * Width() + head * settings_.head_dim;
        const std::vector<double> wanted = AttendOne(&q[at], nodes[t], head);
        for (int64_t d = 0; d < settings_.head_dim; ++d) {
          ASSERT_NEAR(got[at + d], wanted[d], 1e-5);
        }
      }
    }
  }

  // Note [Same bits]: the token in a batch of its own, its path in one segment.
  void ExpectSameAlone(TreeAttentionBatch batch, int64_t token, int32_t node, const Floats& got) {
    std::vector<SlotId> path;
    for (int32_t n = node; n != PinnedPaths::kRoot; n = paths_.parent(n)) {
      path.push_back(tree_.slot(paths_.node(n)));
    }
    std::reverse(path.begin(), path.end());
    const Segment whole{0, static_cast<int32_t>(path.size()), 0, 1, 0};
    batch.queries += token * Width();
    batch.positions += token;
    batch.segments = &whole;
    batch.segment_slots = path.data();
    batch.segment_count = batch.tokens = 1;
    Floats alone(Width());
    Attend(batch, alone.data());
    ASSERT_TRUE(std::equal(alone.begin(), alone.end(), got.begin() + token * Width()))
        << "position " << path.size() - 1;
  }

  // One query sees its token's path as far as the window lets it.
  std::vector<double> AttendOne(const float* query, int32_t node, int64_t head) const {
    const int64_t dim = settings_.head_dim;
    const int64_t part = head / (settings_.q_heads / settings_.kv_heads) * dim;
    std::vector<double> sum(dim);
    double weights = settings_.sinks ? std::exp(double{sinks_[head]}) : 0;
    int64_t seen = 0;
    for (int32_t n = node; n != PinnedPaths::kRoot; n = paths_.parent(n)) {
      if (settings_.window > 0 && seen++ == settings_.window) break;
      double score = 0;
      for (int64_t d = 0; d < dim; ++d) score += double{query[d]} * keys_[n][part + d];
      score *= kScale;
      if (settings_.softcap > 0) score = settings_.softcap * std::tanh(score / settings_.softcap);
      const double weight = std::exp(score);  // normal numbers: no score is large
      weights += weight;
      for (int64_t d = 0; d < dim; ++d) sum[d] += weight * values_[n][part + d];
    }
    for (double& value : sum) value /= weights;
    return sum;
  }

  const Settings settings_;
  std::mt19937 random_;
  TokenTree tree_;
  const NodeId root_;
  NodeNumbers numbers_, visible_index_;
  PinnedPaths paths_{tree_, numbers_};
  std::vector<Floats> keys_, values_;  // by index among the paths
  Floats pool_keys_, pool_values_, sinks_;
};

class TreeAttentionTest : public EveryInstructionSet {};
INSTANTIATE_TEST_SUITE_P(Every, TreeAttentionTest, InstructionSets(), NameOfSet);

TEST_P(TreeAttentionTest, EqualsFullAttention) {
  for (const Settings& settings :
       {Settings{4, 4, 16, 0, 0, false}, Settings{8, 8, 16, 3, 0, false},
        Settings{9, 3, 64, 0, 0, false}, Settings{8, 1, 80, 0, 0, false},
        Settings{2, 1, 96, 5, 0, false}, Settings{4, 2, 128, 1, 0, false},
        Settings{4, 2, 256, 0, 5, false}, Settings{4, 2, 33, 12, 2, true},
        Settings{6, 2, 64, 0, 0, true}}) {
    TreeOfTokens tree(settings, 7);
    for (const int count : {1, 2, 90, 1, 15, 150, 40}) {
      tree.Grow(count);
      ASSERT_FALSE(HasFatalFailure()) << "heads of " << settings.head_dim;
    }
    tree.Grow(290, 10);  // longer than a stretch of keys
    tree.Grow(11, 8);
    ASSERT_FALSE(HasFatalFailure()) << "heads of " << settings.head_dim;
  }
}

}  // namespace
}  // namespace lmfusion
