#pragma once

#include <cstdint>
#include <vector>

#include "tree/node_numbers.h"
#include "tree/token_tree.h"

namespace lmfusion {

// Whole paths of a tree that are in use. Each of their nodes is here once and has an index, in the
// order in which they were added: parents before children. All are pinned while this lives.
class PinnedPaths {
 public:
  static constexpr int32_t kRoot = -1;  // stands for the index of a path's root, which has none

  PinnedPaths(TokenTree& tree, NodeNumbers& numbers) : tree_(tree), numbers_(numbers) {
    numbers_.Clear();
  }
  // Unpins the nodes, children first. Slots that were not published go back, and nodes that nothing
  // is known of are removed.
  ~PinnedPaths();
  PinnedPaths(const PinnedPaths&) = delete;
  PinnedPaths& operator=(const PinnedPaths&) = delete;

  // The index of the node of `token` after the node with index `parent` (kRoot: after `root`),
  // found in the tree or made. Where it throws std::bad_alloc, nothing has changed.
  int32_t Add(NodeId root, int32_t parent, int32_t token);

  int32_t size() const { return static_cast<int32_t>(entries_.size()); }
  NodeId node(int32_t i) const { return entries_[i].node; }
  // kRoot where the parent is a root.
  int32_t parent(int32_t i) const { return entries_[i].parent; }
  // Whether the tree held it, computed, before it was added here.
  bool was_computed(int32_t i) const { return entries_[i].was_computed; }

 private:
  struct Entry {
    NodeId node;
    int32_t parent;
    bool was_computed;
  };
  TokenTree& tree_;
  NodeNumbers& numbers_;  // the index of each node
  std::vector<Entry> entries_;
};

}  // namespace lmfusion
