// Plans of forward passes: which nodes, in which order, and what each of them sees.

#include "tree/batch_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "tree/pinned_paths.h"
#include "tree/token_tree.h"

namespace lmfusion {
namespace {

class BatchPlanTest : public testing::Test {
 protected:
  // The index of a path's last token; all its tokens get slots.
  int32_t Add(NodeId root, const std::vector<int32_t>& tokens) {
    int32_t last = PinnedPaths::kRoot;
    for (const int32_t token : tokens) {
      last = paths_.Add(root, last, token);
      if (tree_.slot(paths_.node(last)) == kNoSlot) tree_.AcquireSlot(paths_.node(last));
    }
    return last;
  }
  void Compute(int32_t last) {
    for (; last != PinnedPaths::kRoot; last = paths_.parent(last)) {
      if (!tree_.computed(paths_.node(last))) tree_.MarkComputed(paths_.node(last));
    }
  }
  std::vector<int32_t> TokensOf(const std::vector<int32_t>& nodes) const {
    std::vector<int32_t> tokens;
    for (const int32_t node : nodes) tokens.push_back(tree_.token(paths_.node(node)));
    return tokens;
  }
  SlotId SlotOf(int32_t node) const { return tree_.slot(paths_.node(node)); }

  TokenTree tree_{10000, 1, int64_t{1} << 30};
  NodeNumbers numbers_, visible_index_;
  const NodeId root_ = tree_.NewRoot(), other_ = tree_.NewRoot();
  PinnedPaths paths_{tree_, numbers_};
};

using Segments = std::vector<std::vector<int32_t>>;
Segments SegmentsOf(const BatchPlan& plan) {
  Segments segments;
  for (const BatchPlan::Segment& s : plan.segments) {
    segments.push_back({s.key_begin, s.key_end, s.token_begin, s.token_end, s.first_position});
  }
  return segments;
}

TEST_F(BatchPlanTest, AChainIsOneSegment) {
  Add(root_, {5, 6, 7});
  const std::vector<int32_t> missing = MissingDepthFirst(tree_, paths_);
  EXPECT_EQ(missing, (std::vector<int32_t>{0, 1, 2}));
  const BatchPlan plan = PlanBatch(tree_, paths_, missing, 0, 3, visible_index_);
  EXPECT_EQ(plan.tokens, (std::vector<int64_t>{5, 6, 7}));
  EXPECT_EQ(plan.positions, (std::vector<int64_t>{0, 1, 2}));
  EXPECT_EQ(plan.slots, (std::vector<SlotId>{SlotOf(0), SlotOf(1), SlotOf(2)}));
  EXPECT_EQ(plan.segment_slots, plan.slots);
  EXPECT_EQ(SegmentsOf(plan), (Segments{{0, 3, 0, 3, 0}}));
}

TEST_F(BatchPlanTest, MissingNodesComeDepthFirstInTheOrderOfTheirFirstVisit) {
  Add(root_, {1, 2, 3});
  Add(root_, {4});
  Add(root_, {1, 5});
  Add(other_, {6});
  Add(root_, {1, 2, 7});
  EXPECT_EQ(TokensOf(MissingDepthFirst(tree_, paths_)),
            (std::vector<int32_t>{1, 2, 3, 7, 5, 4, 6}));
}

TEST_F(BatchPlanTest, WhatIsComputedOrHasNoSlotIsNotMissing) {
  Compute(Add(root_, {1, 2}));
  const int32_t three = Add(root_, {1, 2, 3});
  paths_.Add(root_, three, 4);  // scored only
  EXPECT_EQ(TokensOf(MissingDepthFirst(tree_, paths_)), (std::vector<int32_t>{3}));
}

TEST_F(BatchPlanTest, BranchesSeeTheTrunkAndThemselves) {
  Compute(Add(root_, {1, 2}));
  Add(root_, {1, 2, 3, 4});
  Add(root_, {1, 2, 5});
  const std::vector<int32_t> missing = MissingDepthFirst(tree_, paths_);
  ASSERT_EQ(TokensOf(missing), (std::vector<int32_t>{3, 4, 5}));
  const BatchPlan plan = PlanBatch(tree_, paths_, missing, 0, 3, visible_index_);
  EXPECT_EQ(plan.positions, (std::vector<int64_t>{2, 3, 2}));
  // Keys: 1 2 | 3 4 | 5.
  EXPECT_EQ(plan.segment_slots,
            (std::vector<SlotId>{SlotOf(0), SlotOf(1), SlotOf(2), SlotOf(3), SlotOf(4)}));
  EXPECT_EQ(SegmentsOf(plan), (Segments{{0, 2, 0, 3, 0}, {2, 4, 0, 2, 2}, {4, 5, 2, 3, 2}}));
}

TEST_F(BatchPlanTest, APartSeesWhatThePartsBeforeItComputed) {
  Add(root_, {1, 2, 3});
  Add(root_, {1, 4});
  Add(other_, {9});
  const std::vector<int32_t> missing = MissingDepthFirst(tree_, paths_);
  ASSERT_EQ(TokensOf(missing), (std::vector<int32_t>{1, 2, 3, 4, 9}));
  // The branch 2 3 is not seen by 4, nor the other root's path by anyone; 1 4 is a chain here.
  const BatchPlan plan = PlanBatch(tree_, paths_, missing, 3, 5, visible_index_);
  EXPECT_EQ(plan.tokens, (std::vector<int64_t>{4, 9}));
  EXPECT_EQ(plan.segment_slots, (std::vector<SlotId>{SlotOf(0), SlotOf(3), SlotOf(4)}));
  EXPECT_EQ(SegmentsOf(plan), (Segments{{0, 2, 0, 1, 0}, {2, 3, 1, 2, 0}}));
}

// A part lists the ancestors of its own tokens, whatever else the paths hold.
TEST_F(BatchPlanTest, APartOfManyPathsListsItsOwnAncestorsAlone) {
  const std::vector<int32_t> trunk(200, 1);
  Compute(Add(root_, trunk));
  for (int32_t token = 2; token < 3002; ++token) {
    std::vector<int32_t> text(trunk.begin(), trunk.begin() + 100 + token % 100);
    text.push_back(token);
    Add(root_, text);
  }
  const std::vector<int32_t> missing = MissingDepthFirst(tree_, paths_);
  ASSERT_EQ(missing.size(), 3000u);
  for (size_t begin = 0; begin < missing.size(); begin += 30) {
    const BatchPlan plan = PlanBatch(tree_, paths_, missing, begin, begin + 30, visible_index_);
    const int64_t deepest = *std::max_element(plan.positions.begin(), plan.positions.end());
    EXPECT_EQ(static_cast<int64_t>(plan.segment_slots.size()), deepest + 30);
    EXPECT_LE(plan.segments.size(), 60u);
  }
}

// Whatever the tree and the size of the parts: each token is in one part, sees each position up to
// its own once, and there the node of its own path, which is computed before or in the same part.
TEST_F(BatchPlanTest, EveryTokenSeesItsOwnPath) {
  std::mt19937 random(11);
  for (int p = 0; p < 60; ++p) {
    std::vector<int32_t> text(1 + random() % 12);
    for (int32_t& token : text) token = static_cast<int32_t>(random() % 3);
    const int32_t last = Add(random() % 4 == 0 ? other_ : root_, text);
    if (random() % 4 == 0) Compute(last);
  }
  const std::vector<int32_t> missing = MissingDepthFirst(tree_, paths_);
  ASSERT_EQ(std::set<int32_t>(missing.begin(), missing.end()).size(), missing.size());
  for (const size_t part : {size_t{1}, size_t{3}, size_t{17}, missing.size()}) {
    std::set<SlotId> filled;
    for (int32_t i = 0; i < paths_.size(); ++i) {
      if (tree_.computed(paths_.node(i))) filled.insert(SlotOf(i));
    }
    for (size_t begin = 0; begin < missing.size(); begin += part) {
      const size_t end = std::min(missing.size(), begin + part);
      const BatchPlan plan = PlanBatch(tree_, paths_, missing, begin, end, visible_index_);
      ASSERT_EQ(plan.size(), static_cast<int64_t>(end - begin));
      filled.insert(plan.slots.begin(), plan.slots.end());
      for (int32_t t = 0; t < plan.size(); ++t) {
        std::map<int64_t, SlotId> seen, wanted;
        for (const BatchPlan::Segment& s : plan.segments) {
          ASSERT_LT(s.key_begin, s.key_end);
          if (t < s.token_begin || t >= s.token_end) continue;
          for (int32_t key = s.key_begin; key < s.key_end; ++key) {
            const int64_t position = s.first_position + key - s.key_begin;
            if (position > plan.positions[t]) continue;
            ASSERT_TRUE(seen.emplace(position, plan.segment_slots[key]).second);
          }
        }
        for (int32_t node = missing[begin + t]; node != PinnedPaths::kRoot;
             node = paths_.parent(node)) {
          wanted[tree_.position(paths_.node(node))] = SlotOf(node);
          ASSERT_EQ(filled.count(SlotOf(node)), 1u);
        }
        ASSERT_EQ(seen, wanted);
      }
    }
  }
}

}  // namespace
}  // namespace lmfusion
