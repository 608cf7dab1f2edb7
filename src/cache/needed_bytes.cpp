#include "cache/needed_bytes.h"

#include "tree/node_numbers.h"

namespace lmfusion {

int64_t NeededBytes(const TokenPaths& paths, int64_t slot_bytes, const TokenTree* held,
                    NodeId root) {
  TokenTree tree(0, 0, 0);  // of the paths alone
  NodeNumbers counted;      // nodes that need a slot
  const NodeId top = tree.NewRoot();
  int64_t slots = 0;
  for (const TokenPaths::Path& path : paths.paths) {
    NodeId node = top, held_node = held == nullptr ? kNoNode : root;
    for (const int32_t token : path.tokens()) {
      node = tree.FindOrAdd(node, token);
      if (held_node != kNoNode) held_node = held->Find(held_node, token);
    }
    counted.Fit(tree.node_end());
    // The last token of a text needs no slot, unless something is asked of what follows it.
    const bool last = path.ends_word || path.scored_begin >= path.size() ||
                      (held_node != kNoNode && held->computed(held_node));
    for (NodeId at = last ? node : tree.parent(node); at != top && counted[at] < 0;
         at = tree.parent(at)) {
      counted.Set(at, 0);
      ++slots;
    }
  }
  return slots * slot_bytes + (tree.node_count() - 1) * TokenTree::node_bytes();
}

}  // namespace lmfusion
