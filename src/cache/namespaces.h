#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "tree/token_tree.h"

namespace lmfusion {

// The roots of a tree by the names of the namespaces that calls use. More than `most` are kept only
// while they hold something, or for as long as it takes to come to them. Not thread safe.
class Namespaces {
 public:
  explicit Namespaces(TokenTree& tree, size_t most = 1024)
      : tree_(tree), most_(most), hand_(roots_.end()) {}

  // The root of a namespace, made where there is none.
  NodeId Root(const std::string& name);
  // The same, or kNoNode where there is none.
  NodeId Find(const std::string& name) const;

  // Call it after each work, while no root is in use. Looks at the next namespaces of a round, two
  // and twice as many as were added, and forgets those that hold nothing. So what is empty never
  // outnumbers the rest by much, and no work pays for all that there are.
  void ForgetSome() noexcept;

  int64_t size() const { return static_cast<int64_t>(roots_.size()); }
  // Bytes of the roots.
  int64_t bytes() const { return size() * TokenTree::node_bytes(); }
  // Namespaces that ForgetSome has looked at so far.
  int64_t looked_at() const { return looked_at_; }

 private:
  using Roots = std::map<std::string, NodeId>;
  TokenTree& tree_;
  const size_t most_;
  Roots roots_;
  Roots::iterator hand_;  // the next to be looked at
  int64_t added_ = 0;     // since ForgetSome
  int64_t looked_at_ = 0;
};

}  // namespace lmfusion
