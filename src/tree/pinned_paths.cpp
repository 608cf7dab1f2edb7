#include "tree/pinned_paths.h"

#include <algorithm>

namespace lmfusion {

int32_t PinnedPaths::Add(NodeId root, int32_t parent, int32_t token) {
  // Room first: nothing below the new node's making may fail.
  if (entries_.size() == entries_.capacity()) {
    entries_.reserve(std::max<size_t>(16, 2 * entries_.size()));
  }
  numbers_.Fit(tree_.node_end() + 1);
  const NodeId node = tree_.FindOrAdd(parent == kRoot ? root : entries_[parent].node, token);
  int32_t index = numbers_[node];
  if (index >= 0) return index;
  index = size();
  tree_.Pin(node);
  numbers_.Set(node, index);
  entries_.push_back({node, parent, tree_.computed(node)});
  return index;
}

PinnedPaths::~PinnedPaths() {
  for (size_t i = entries_.size(); i-- > 0;) {
    const NodeId node = entries_[i].node;
    if (tree_.slot(node) != kNoSlot && !tree_.computed(node)) tree_.ReleaseSlot(node);
    tree_.Unpin(node);
    tree_.RemoveIfEmpty(node);
  }
}

}  // namespace lmfusion
