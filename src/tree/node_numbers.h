#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tree/token_tree.h"

namespace lmfusion {

// A number for each of some nodes of a tree, found in constant time and forgotten in constant time:
// memory for one walk over the tree after another. Whoever is given one uses it alone.
class NodeNumbers {
 public:
  // Forgets all numbers; the memory stays.
  void Clear() {
    if (++epoch_ == 0) {  // after 2^32 walks the old marks would count again
      std::fill(entries_.begin(), entries_.end(), Entry());
      epoch_ = 1;
    }
  }
  // Makes room for nodes below `end`. Throws std::bad_alloc; Set does not.
  void Fit(NodeId end) {
    const auto needed = static_cast<size_t>(end);
    if (needed > entries_.size()) entries_.resize(std::max(needed, 2 * entries_.size()));
  }
  void Set(NodeId node, int32_t number) { entries_[node] = {epoch_, number}; }
  // -1 where it has none.
  int32_t operator[](NodeId node) const {
    if (static_cast<size_t>(node) >= entries_.size()) return -1;
    const Entry& entry = entries_[node];
    return entry.epoch == epoch_ ? entry.number : -1;
  }

 private:
  struct Entry {
    uint32_t epoch = 0;
    int32_t number = -1;
  };
  std::vector<Entry> entries_;
  uint32_t epoch_ = 1;
};

}  // namespace lmfusion
