#include "tree/batch_plan.h"

#include <algorithm>

namespace lmfusion {
namespace {

// A node that a batch can see.
struct VisibleNode {
  int32_t path_node;               // index among the paths
  int32_t parent;                  // index among the visible nodes, -1 under a root
  int32_t token_begin, token_end;  // the tokens of the batch that see it
  int32_t children = 0;            // visible ones
};

// In depth-first order.
std::vector<VisibleNode> VisibleNodes(const PinnedPaths& paths, const std::vector<int32_t>& missing,
                                      size_t begin, size_t end, NodeNumbers& visible_index) {
  std::vector<VisibleNode> visible;
  std::vector<int32_t> climb;
  visible_index.Clear();
  visible_index.Fit(paths.size());
  for (size_t i = begin; i < end; ++i) {
    const auto token = static_cast<int32_t>(i - begin);
    int32_t node = missing[i];
    while (node != PinnedPaths::kRoot && visible_index[node] < 0) {
      climb.push_back(node);
      node = paths.parent(node);
    }
    int32_t parent = node == PinnedPaths::kRoot ? -1 : visible_index[node];
    while (!climb.empty()) {
      const auto index = static_cast<int32_t>(visible.size());
      visible_index.Set(climb.back(), index);
      if (parent >= 0) ++visible[parent].children;
      visible.push_back({climb.back(), parent, token, token + 1});
      parent = index;
      climb.pop_back();
    }
  }
  for (size_t i = visible.size(); i-- > 0;) {
    const VisibleNode& v = visible[i];
    if (v.parent < 0) continue;
    visible[v.parent].token_end = std::max(visible[v.parent].token_end, v.token_end);
  }
  return visible;
}

}  // namespace

std::vector<int32_t> MissingDepthFirst(const TokenTree& tree, const PinnedPaths& paths) {
  // First child and next sibling among these paths alone.
  std::vector<int32_t> first_child(paths.size(), -1), next_sibling(paths.size(), -1), open;
  for (int32_t i = paths.size(); i-- > 0;) {
    const int32_t parent = paths.parent(i);
    if (parent == PinnedPaths::kRoot) {
      open.push_back(i);
    } else {
      next_sibling[i] = first_child[parent];
      first_child[parent] = i;
    }
  }
  std::vector<int32_t> missing;
  while (!open.empty()) {
    const int32_t i = open.back();
    open.pop_back();
    const NodeId node = paths.node(i);
    if (tree.slot(node) != kNoSlot && !tree.computed(node)) missing.push_back(i);
    if (next_sibling[i] >= 0) open.push_back(next_sibling[i]);
    if (first_child[i] >= 0) open.push_back(first_child[i]);
  }
  return missing;
}

BatchPlan PlanBatch(const TokenTree& tree, const PinnedPaths& paths,
                    const std::vector<int32_t>& missing, size_t begin, size_t end,
                    NodeNumbers& visible_index) {
  BatchPlan plan;
  for (size_t i = begin; i < end; ++i) {
    const NodeId node = paths.node(missing[i]);
    plan.tokens.push_back(tree.token(node));
    plan.positions.push_back(tree.position(node));
    plan.slots.push_back(tree.slot(node));
  }
  const std::vector<VisibleNode> visible = VisibleNodes(paths, missing, begin, end, visible_index);
  for (size_t i = 0; i < visible.size(); ++i) {
    const VisibleNode& v = visible[i];
    const NodeId node = paths.node(v.path_node);
    // In depth-first order an only child comes right after its parent: the chain goes on.
    const bool goes_on = v.parent >= 0 && visible[v.parent].children == 1;
    const auto key = static_cast<int32_t>(i);
    if (!goes_on) {
      plan.segments.push_back({key, key, v.token_begin, v.token_end, tree.position(node)});
    }
    plan.segments.back().key_end = key + 1;
    plan.segment_slots.push_back(tree.slot(node));
  }
  return plan;
}

}  // namespace lmfusion
