// The tree on its own: paths, slots, pins, and what goes first when room is needed.

#include "tree/token_tree.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <new>
#include <random>
#include <vector>

#include "failing_new.h"
#include "tree/node_numbers.h"
#include "tree/pinned_paths.h"

namespace lmfusion {
namespace {

constexpr int64_t kSlotBytes = 100;

int64_t BytesOf(int64_t slots, int64_t nodes) {
  return slots * kSlotBytes + nodes * TokenTree::node_bytes();
}

// The nodes of a path, each computed and let go, children first as a chunk does.
std::vector<NodeId> Compute(TokenTree& tree, NodeId root, const std::vector<int32_t>& tokens) {
  std::vector<NodeId> nodes;
  NodeId node = root;
  for (const int32_t token : tokens) {
    node = tree.FindOrAdd(node, token);
    tree.Pin(node);
    nodes.push_back(node);
  }
  for (const NodeId each : nodes) {
    if (tree.computed(each)) continue;
    EXPECT_TRUE(tree.AcquireSlot(each));
    tree.MarkComputed(each);
  }
  for (size_t i = nodes.size(); i-- > 0;) tree.Unpin(nodes[i]);
  return nodes;
}

// How many tokens of a path are computed.
int ComputedTokens(const TokenTree& tree, NodeId root, const std::vector<int32_t>& tokens) {
  int count = 0;
  NodeId node = root;
  for (const int32_t token : tokens) {
    node = tree.Find(node, token);
    if (node == kNoNode) break;
    count += tree.computed(node) ? 1 : 0;
  }
  return count;
}

TEST(TokenTree, ATokenInAContextIsOneNode) {
  TokenTree tree(10, kSlotBytes, 1 << 20);
  const NodeId root = tree.NewRoot(), other = tree.NewRoot();
  EXPECT_TRUE(tree.is_root(root));
  EXPECT_EQ(tree.position(root), -1);
  EXPECT_EQ(tree.Find(root, 5), kNoNode);
  const NodeId five = tree.FindOrAdd(root, 5);
  EXPECT_EQ(tree.Find(root, 5), five);
  EXPECT_EQ(tree.FindOrAdd(root, 5), five);
  EXPECT_EQ(tree.Find(other, 5), kNoNode);
  const NodeId again = tree.FindOrAdd(five, 5);
  EXPECT_NE(again, five);
  EXPECT_EQ(tree.parent(again), five);
  EXPECT_EQ(tree.token(again), 5);
  EXPECT_EQ(tree.position(five), 0);
  EXPECT_EQ(tree.position(again), 1);
  EXPECT_EQ(tree.slot(again), kNoSlot);
  EXPECT_FALSE(tree.computed(again));
  EXPECT_TRUE(std::isnan(tree.log_prob(again)));
  EXPECT_TRUE(std::isnan(tree.normalizer(again)));
  EXPECT_TRUE(std::isnan(tree.word_end(again)));
  EXPECT_EQ(tree.node_count(), 4);
  EXPECT_EQ(tree.bytes(), BytesOf(0, 4));
}

TEST(TokenTree, ChildrenAreListedAndRemoved) {
  TokenTree tree(10, kSlotBytes, 1 << 20);
  const NodeId root = tree.NewRoot();
  const NodeId a = tree.FindOrAdd(root, 1), b = tree.FindOrAdd(root, 2),
               c = tree.FindOrAdd(root, 3);
  tree.FindOrAdd(tree.FindOrAdd(b, 4), 5);
  tree.RemoveSubtree(b);
  std::vector<NodeId> children;
  for (NodeId n = tree.first_child(root); n != kNoNode; n = tree.next_sibling(n)) {
    children.push_back(n);
  }
  EXPECT_EQ(children, (std::vector<NodeId>{c, a}));
  EXPECT_EQ(tree.Find(root, 2), kNoNode);
  EXPECT_EQ(tree.node_count(), 3);
  // The ids of nodes that went are used again, and nothing of those is left in them.
  const NodeId first = tree.FindOrAdd(a, 6);
  const NodeId second = tree.FindOrAdd(first, 7), third = tree.FindOrAdd(second, 8);
  EXPECT_EQ(tree.node_end(), 6);
  EXPECT_EQ(tree.Find(first, 5), kNoNode);
  EXPECT_FALSE(tree.has_children(third));
  tree.RemoveChildren(root);
  EXPECT_FALSE(tree.has_children(root));
  EXPECT_EQ(tree.node_count(), 1);
}

TEST(TokenTree, ARootTakesNothingFromTheNodeWhoseIdItHas) {
  TokenTree tree(10, kSlotBytes, 1 << 20);
  const NodeId root = tree.NewRoot();
  const NodeId a = tree.FindOrAdd(root, 1), b = tree.FindOrAdd(root, 2);
  tree.RemoveSubtree(a);
  tree.RemoveSubtree(b);
  const NodeId other = tree.NewRoot();
  ASSERT_EQ(other, b);
  EXPECT_EQ(tree.next_sibling(other), kNoNode);
  EXPECT_TRUE(tree.is_root(other));
  EXPECT_FALSE(tree.has_children(other));
}

TEST(TokenTree, SlotsComeAndGo) {
  TokenTree tree(2, kSlotBytes, 1 << 20);
  const NodeId root = tree.NewRoot();
  const NodeId a = tree.FindOrAdd(root, 1), b = tree.FindOrAdd(a, 2), c = tree.FindOrAdd(b, 3);
  for (const NodeId node : {a, b, c}) tree.Pin(node);
  ASSERT_TRUE(tree.AcquireSlot(a));
  ASSERT_TRUE(tree.AcquireSlot(b));
  EXPECT_NE(tree.slot(a), tree.slot(b));
  EXPECT_FALSE(tree.AcquireSlot(c)) << "all is pinned";
  EXPECT_EQ(tree.slots_in_use(), 2);
  EXPECT_FALSE(tree.computed(a));
  const SlotId slot = tree.slot(b);
  tree.ReleaseSlot(b);
  EXPECT_EQ(tree.slot(b), kNoSlot);
  ASSERT_TRUE(tree.AcquireSlot(c));
  EXPECT_EQ(tree.slot(c), slot);
  EXPECT_EQ(tree.evictions(), 0);
}

TEST(TokenTree, TheLeastRecentlyUsedGoesFirst) {
  TokenTree tree(6, kSlotBytes, 1 << 20);
  const NodeId root = tree.NewRoot();
  Compute(tree, root, {1, 2});
  Compute(tree, root, {3, 4});
  Compute(tree, root, {5, 6});
  Compute(tree, root, {1, 2});  // used again
  Compute(tree, root, {7});
  EXPECT_EQ(tree.evictions(), 1);
  EXPECT_EQ(ComputedTokens(tree, root, {3, 4}), 1) << "a leaf goes before its parent";
  EXPECT_EQ(tree.Find(tree.Find(root, 3), 4), kNoNode) << "and nothing is kept of it";
  Compute(tree, root, {8});
  EXPECT_EQ(ComputedTokens(tree, root, {3, 4}), 0);
  Compute(tree, root, {9});
  EXPECT_EQ(ComputedTokens(tree, root, {5, 6}), 1);
  EXPECT_EQ(ComputedTokens(tree, root, {1, 2}), 2);
  EXPECT_EQ(tree.evictions(), 3);
  EXPECT_EQ(tree.slots_in_use(), 6);
}

TEST(TokenTree, WhatIsPinnedStays) {
  TokenTree tree(3, kSlotBytes, 1 << 20);
  const NodeId root = tree.NewRoot();
  const std::vector<NodeId> old = Compute(tree, root, {1, 2});
  tree.Pin(old[0]);
  tree.Pin(old[0]);
  for (int32_t token = 10; token < 20; ++token) {
    Compute(tree, root, {token});
    ASSERT_TRUE(tree.computed(old[0]));
  }
  EXPECT_EQ(tree.Find(old[0], 2), kNoNode);
  tree.Unpin(old[0]);
  for (int32_t token = 10; token < 20; ++token) Compute(tree, root, {token});
  EXPECT_TRUE(tree.computed(old[0])) << "pinned twice, let go once";
  tree.Unpin(old[0]);
  for (int32_t token = 10; token < 20; ++token) Compute(tree, root, {token});
  EXPECT_EQ(tree.Find(root, 1), kNoNode);
}

TEST(TokenTree, LogProbabilitiesOutliveSlotsButNotTheirParents) {
  TokenTree tree(2, kSlotBytes, 1 << 20);
  const NodeId root = tree.NewRoot();
  const std::vector<NodeId> nodes = Compute(tree, root, {1, 2});
  tree.set_log_prob(nodes[0], -1);
  tree.set_log_prob(nodes[1], -2);
  const NodeId leaf = tree.FindOrAdd(nodes[1], 3);
  tree.Pin(leaf);
  tree.set_log_prob(leaf, -3);
  tree.Unpin(leaf);
  Compute(tree, root, {4});
  EXPECT_FALSE(tree.computed(nodes[1]));
  EXPECT_EQ(tree.log_prob(tree.Find(nodes[0], 2)), -2);
  EXPECT_EQ(tree.Find(nodes[1], 3), kNoNode) << "an evicted node takes its leaves along";
  Compute(tree, root, {5});
  EXPECT_EQ(tree.log_prob(tree.Find(root, 1)), -1);
  EXPECT_EQ(tree.Find(nodes[0], 2), kNoNode);
}

TEST(TokenTree, NodesWithoutSlotsAreTrimmedToo) {
  TokenTree tree(100, kSlotBytes, BytesOf(2, 10));
  const NodeId root = tree.NewRoot();
  for (int32_t token = 0; token < 40; ++token) {
    const NodeId node = tree.FindOrAdd(root, token);
    tree.Pin(node);
    tree.set_log_prob(node, -1);
    tree.Unpin(node);
  }
  tree.Trim();
  EXPECT_LE(tree.bytes(), BytesOf(2, 10));
  EXPECT_GT(tree.bytes(), BytesOf(2, 9));
  EXPECT_EQ(tree.Find(root, 0), kNoNode);
  EXPECT_NE(tree.Find(root, 39), kNoNode);
  EXPECT_EQ(tree.evictions(), 0) << "no slot was taken back";
}

TEST(TokenTree, ASlotMakesRoomWithinTheBytes) {
  for (const int64_t slot_bytes : {kSlotBytes, 100 * kSlotBytes}) {
    const int64_t bytes = 3 * slot_bytes + 4 * TokenTree::node_bytes();
    TokenTree tree(100, slot_bytes, bytes);
    const NodeId root = tree.NewRoot();
    for (int32_t token = 0; token < 10; ++token) {
      Compute(tree, root, {token});
      ASSERT_LE(tree.bytes(), bytes);
    }
    EXPECT_EQ(tree.slots_in_use(), 3);
  }
}

TEST(TokenTree, TheLastByteMayBeHeld) {
  TokenTree tree(100, kSlotBytes, BytesOf(2, 3));
  const NodeId root = tree.NewRoot();
  Compute(tree, root, {1, 2});
  tree.Trim();
  EXPECT_EQ(tree.bytes(), BytesOf(2, 3));
}

TEST(TokenTree, ANodeTakesTheBytesThatItIsSaidTo) {
  constexpr int64_t kNodes = 4096;  // so many fill what a vector makes room for
  const int64_t before = FailingNew::HeldBytes();
  TokenTree tree(1, kSlotBytes, 1 << 20);
  const NodeId root = tree.NewRoot();
  for (int32_t token = 1; token < kNodes; ++token) tree.FindOrAdd(root, token);
  const double held = static_cast<double>(FailingNew::HeldBytes() - before) / kNodes;
  EXPECT_LE(held, TokenTree::node_bytes());
  // Beside it: a number in NodeNumbers, and what malloc keeps of an entry of the map.
  EXPECT_LE(TokenTree::node_bytes(), held + 24);
}

TEST(TokenTree, EverySlotCanBeGivenBackWithoutMemory) {
  for (int32_t count = 1; count < 40; ++count) {
    TokenTree tree(100, kSlotBytes, 1 << 20);
    const NodeId root = tree.NewRoot();
    std::vector<NodeId> nodes;
    for (int32_t token = 0; token < count; ++token) {
      nodes.push_back(tree.FindOrAdd(root, token));
      tree.Pin(nodes.back());
      ASSERT_TRUE(tree.AcquireSlot(nodes.back()));
    }
    const FailingNew failing(0, FailingNew::Mode::kFromThenOn);
    for (const NodeId node : nodes) tree.ReleaseSlot(node);
    ASSERT_FALSE(FailingNew::HasFailed());
    ASSERT_EQ(tree.slots_in_use(), 0);
  }
}

TEST(TokenTree, OnlyEmptyNodesAreRemovedAsEmpty) {
  TokenTree tree(10, kSlotBytes, 1 << 20);
  const NodeId root = tree.NewRoot();
  const NodeId parent = tree.FindOrAdd(root, 1), child = tree.FindOrAdd(parent, 2);
  tree.RemoveIfEmpty(parent);
  EXPECT_EQ(tree.Find(root, 1), parent) << "it has a child";
  tree.Pin(child);
  tree.RemoveIfEmpty(child);
  EXPECT_EQ(tree.Find(parent, 2), child) << "it is pinned";
  tree.set_log_prob(child, -1);
  tree.Unpin(child);
  tree.RemoveIfEmpty(child);
  EXPECT_EQ(tree.Find(parent, 2), child) << "it is known";
  tree.set_log_prob(child, std::nanf(""));
  tree.RemoveIfEmpty(child);
  EXPECT_EQ(tree.Find(parent, 2), kNoNode);
  tree.RemoveIfEmpty(parent);
  EXPECT_EQ(tree.node_count(), 1);
}

TEST(TokenTree, ClearLeavesTheRoots) {
  TokenTree tree(10, kSlotBytes, 1 << 20);
  const NodeId root = tree.NewRoot(), other = tree.NewRoot();
  Compute(tree, root, {1, 2, 3});
  Compute(tree, other, {1, 2});
  tree.Clear();
  EXPECT_EQ(tree.bytes(), BytesOf(0, 2));
  EXPECT_EQ(tree.slots_in_use(), 0);
  EXPECT_EQ(tree.evictions(), 0);
  EXPECT_EQ(Compute(tree, other, {1, 2}).size(), 2u);
  EXPECT_EQ(ComputedTokens(tree, root, {1, 2, 3}), 0);
}

// Paths computed at random, against a list of them by last use: a path is there whole or from its
// end on not, and what was used last is.
TEST(TokenTree, RandomPathsKeepTheirBeginnings) {
  for (const int slots : {5, 9, 30}) {
    TokenTree tree(slots, kSlotBytes, 1 << 20);
    const NodeId root = tree.NewRoot();
    std::mt19937 random(slots);
    for (int step = 0; step < 2000; ++step) {
      std::vector<int32_t> path(1 + random() % 5);
      for (int32_t& token : path) token = static_cast<int32_t>(random() % 3);
      Compute(tree, root, path);
      ASSERT_EQ(ComputedTokens(tree, root, path), static_cast<int>(path.size()));
      ASSERT_LE(tree.slots_in_use(), slots);
    }
    int64_t computed = 0;
    for (NodeId id = 0; id < tree.node_end(); ++id) {
      if (!tree.computed(id)) continue;
      ++computed;
      if (!tree.is_root(tree.parent(id))) {
        EXPECT_TRUE(tree.computed(tree.parent(id)));
      }
    }
    EXPECT_EQ(computed, tree.slots_in_use());
  }
}

// Contexts of ten tokens behind one another's beginnings, some of them in use, in a full tree.
TEST(TokenTree, AMillionNodesAreEvictedOneAfterAnother) {
  constexpr int64_t kSlots = 1000000;
  TokenTree tree(kSlots, 1, int64_t{1} << 40);
  NodeNumbers numbers;
  const NodeId root = tree.NewRoot();
  const auto compute = [&](PinnedPaths& paths, int32_t text) {
    int32_t last = PinnedPaths::kRoot;
    for (int32_t i = 0; i < 10; ++i) {
      last = paths.Add(root, last, i < 6 ? text % 1000 + i * (text % 7) : text + i);
      const NodeId node = paths.node(last);
      if (tree.slot(node) != kNoSlot) continue;
      ASSERT_TRUE(tree.AcquireSlot(node));
      tree.MarkComputed(node);
    }
  };
  int32_t text = 0;
  for (; tree.evictions() == 0; ++text) {
    PinnedPaths paths(tree, numbers);
    compute(paths, text);
  }
  EXPECT_GT(tree.node_count(), kSlots * 9 / 10);
  NodeNumbers held_numbers;
  PinnedPaths held(tree, held_numbers);
  for (const int32_t used : {text - 1000, text - 500, text - 1}) compute(held, used);
  for (const int32_t end = text + 20000; text < end; ++text) {
    PinnedPaths paths(tree, numbers);
    compute(paths, text);
  }
  EXPECT_GT(tree.evictions(), 50000);
  EXPECT_EQ(tree.slots_in_use(), kSlots);
  for (int32_t i = 0; i < held.size(); ++i) ASSERT_TRUE(tree.computed(held.node(i)));
}

TEST(TokenTree, NothingChangesWhereMemoryIsLacking) {
  int faults = 0;
  for (int64_t count = 0; count < 40; ++count) {
    TokenTree tree(100, kSlotBytes, 1 << 20);
    const NodeId root = tree.NewRoot();
    NodeId node = root;
    int32_t token = 0;
    int64_t nodes = 1, slots = 0;
    const FailingNew failing(count);
    try {
      for (; token < 20; ++token) {
        node = tree.FindOrAdd(node, token);
        ++nodes;
        tree.Pin(node);
        tree.AcquireSlot(node);
        ++slots;
      }
    } catch (const std::bad_alloc&) {
      ++faults;
    }
    ASSERT_EQ(tree.node_count(), nodes);
    ASSERT_EQ(tree.slots_in_use(), slots);
    if (slots < nodes - 1) {
      ASSERT_EQ(tree.slot(node), kNoSlot);
    } else {
      ASSERT_EQ(tree.Find(node, token), kNoNode);
    }
  }
  EXPECT_GT(faults, 10);
}

TEST(NodeNumbers, AreForgottenTogether) {
  NodeNumbers numbers;
  EXPECT_EQ(numbers[7], -1);
  numbers.Fit(8);
  EXPECT_EQ(numbers[7], -1);
  numbers.Set(7, 3);
  numbers.Set(0, 4);
  numbers.Fit(100);
  EXPECT_EQ(numbers[7], 3);
  EXPECT_EQ(numbers[0], 4);
  EXPECT_EQ(numbers[99], -1);
  EXPECT_EQ(numbers[100000], -1);
  numbers.Clear();
  EXPECT_EQ(numbers[7], -1);
}

TEST(PinnedPaths, ANodeIsThereOnceAndParentsComeFirst) {
  TokenTree tree(10, kSlotBytes, 1 << 20);
  NodeNumbers numbers;
  const NodeId root = tree.NewRoot(), other = tree.NewRoot();
  Compute(tree, root, {1});
  PinnedPaths paths(tree, numbers);
  const int32_t a = paths.Add(root, PinnedPaths::kRoot, 1), b = paths.Add(root, a, 2);
  EXPECT_EQ(paths.Add(root, PinnedPaths::kRoot, 1), a);
  const int32_t c = paths.Add(root, a, 3), d = paths.Add(other, PinnedPaths::kRoot, 1);
  EXPECT_EQ((std::vector<int32_t>{a, b, c, d}), (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(paths.size(), 4);
  EXPECT_EQ(paths.parent(c), a);
  EXPECT_EQ(paths.parent(d), PinnedPaths::kRoot);
  EXPECT_EQ(tree.parent(paths.node(d)), other);
  EXPECT_TRUE(paths.was_computed(a));
  EXPECT_FALSE(paths.was_computed(b));
}

TEST(PinnedPaths, LetGoOfWhatIsNotKnown) {
  TokenTree tree(10, kSlotBytes, 1 << 20);
  NodeNumbers numbers;
  const NodeId root = tree.NewRoot();
  {
    PinnedPaths paths(tree, numbers);
    int32_t last = PinnedPaths::kRoot;
    for (int32_t token = 0; token < 5; ++token) last = paths.Add(root, last, token);
    for (int32_t i = 0; i < 4; ++i) ASSERT_TRUE(tree.AcquireSlot(paths.node(i)));
    tree.MarkComputed(paths.node(0));
    tree.MarkComputed(paths.node(1));
  }
  EXPECT_EQ(tree.slots_in_use(), 2);
  EXPECT_EQ(tree.node_count(), 3);
  EXPECT_EQ(ComputedTokens(tree, root, {0, 1, 2}), 2);
  TokenTree small(1, kSlotBytes, 1 << 20);
  const NodeId top = small.NewRoot();
  Compute(small, top, {1});
  {
    PinnedPaths paths(small, numbers);
    paths.Add(top, PinnedPaths::kRoot, 1);
    const int32_t more = paths.Add(top, PinnedPaths::kRoot, 2);
    EXPECT_FALSE(small.AcquireSlot(paths.node(more)));
  }
  Compute(small, top, {2});
  EXPECT_EQ(small.Find(top, 1), kNoNode);
}

TEST(PinnedPaths, NothingIsPinnedThatMemoryLackedFor) {
  int faults = 0;
  for (int64_t count = 0; count < 60; ++count) {
    TokenTree tree(100, kSlotBytes, 1 << 20);
    NodeNumbers numbers;
    const NodeId root = tree.NewRoot();
    try {
      const FailingNew failing(count);
      PinnedPaths paths(tree, numbers);
      int32_t last = PinnedPaths::kRoot;
      for (int32_t token = 0; token < 40; ++token) last = paths.Add(root, last, token);
    } catch (const std::bad_alloc&) {
      ++faults;
    }
    ASSERT_EQ(tree.node_count(), 1) << "after allocation " << count;
  }
  EXPECT_GT(faults, 30);
}

}  // namespace
}  // namespace lmfusion
