#include "tree/batch_plan.h"

#include <algorithm>

namespace lmfusion {
namespace {

// The nodes a batch can see, in depth-first order, and what is known of each.
struct VisibleNode {
  NodeId node;
  int32_t parent;  // index among the visible nodes, -1 under a root
  int32_t token_begin, token_end;
  int32_t children = 0;
};

std::vector<VisibleNode> VisibleNodes(TokenTree& tree, const std::vector<NodeId>& nodes,
                                      size_t begin, size_t end) {
  std::vector<VisibleNode> visible;
  std::vector<NodeId> climb;
  tree.BeginMarks();
  for (size_t i = begin; i < end; ++i) {
    const auto token = static_cast<int32_t>(i - begin);
    NodeId node = nodes[i];
    while (!tree.is_root(node) && tree.mark(node) < 0) {
      climb.push_back(node);
      node = tree.parent(node);
    }
    int32_t parent = tree.is_root(node) ? -1 : tree.mark(node);
    while (!climb.empty()) {
      const auto index = static_cast<int32_t>(visible.size());
      tree.set_mark(climb.back(), index);
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

std::vector<NodeId> MissingDepthFirst(TokenTree& tree, const std::vector<NodeId>& visited) {
  // First child and next sibling among the visited nodes alone.
  std::vector<int32_t> first_child(visited.size(), -1), next_sibling(visited.size(), -1), stack;
  tree.BeginMarks();
  for (size_t i = 0; i < visited.size(); ++i) tree.set_mark(visited[i], static_cast<int32_t>(i));
  for (size_t i = visited.size(); i-- > 0;) {
    const NodeId parent = tree.parent(visited[i]);
    if (tree.is_root(parent)) {
      stack.push_back(static_cast<int32_t>(i));
    } else {
      int32_t& first = first_child[tree.mark(parent)];
      next_sibling[i] = first;
      first = static_cast<int32_t>(i);
    }
  }
  std::vector<NodeId> missing;
  while (!stack.empty()) {
    const int32_t i = stack.back();
    stack.pop_back();
    const NodeId node = visited[i];
    if (tree.slot(node) != kNoSlot && !tree.computed(node)) missing.push_back(node);
    if (next_sibling[i] >= 0) stack.push_back(next_sibling[i]);
    if (first_child[i] >= 0) stack.push_back(first_child[i]);
  }
  return missing;
}

BatchPlan PlanBatch(TokenTree& tree, const std::vector<NodeId>& nodes, size_t begin, size_t end) {
  BatchPlan plan;
  for (size_t i = begin; i < end; ++i) {
    plan.tokens.push_back(tree.token(nodes[i]));
    plan.positions.push_back(tree.position(nodes[i]));
    plan.slots.push_back(tree.slot(nodes[i]));
  }
  const std::vector<VisibleNode> visible = VisibleNodes(tree, nodes, begin, end);
  for (size_t i = 0; i < visible.size(); ++i) {
    const VisibleNode& v = visible[i];
    // In depth-first order an only child comes right after its parent: the chain goes on.
    const bool goes_on = v.parent >= 0 && visible[v.parent].children == 1;
    const auto key = static_cast<int32_t>(i);
    if (!goes_on) {
      plan.segments.push_back({key, key, v.token_begin, v.token_end, tree.position(v.node)});
    }
    plan.segments.back().key_end = key + 1;
    plan.segment_slots.push_back(tree.slot(v.node));
  }
  return plan;
}

}  // namespace lmfusion
