#pragma once

#include <cstdint>
#include <vector>

#include "tree/causal_lm.h"
#include "tree/token_tree.h"

namespace lmfusion {

// A set of paths that the cache holds at once: found in the tree, computed where they are missing,
// read, and let go. Every visited node is pinned from its first visit until Close().
//
// Use: Visit the last node of each path, WantScores... what is to be known, Compute, read
// the tree's log_prob/word_end, Close.
class PathPiece {
 public:
  struct Counts {
    uint64_t computed = 0, reused = 0, forwards = 0;
    double tree_seconds = 0, forward_seconds = 0, output_seconds = 0;
  };

  PathPiece(TokenTree& tree, CausalLM& model, int64_t max_batch_tokens)
      : tree_(tree), model_(model), max_batch_tokens_(max_batch_tokens) {
    tree_.BeginMarks();
  }
  // Lets go of all nodes; those that nothing is known of are removed.
  ~PathPiece() { Close(); }
  PathPiece(const PathPiece&) = delete;
  PathPiece& operator=(const PathPiece&) = delete;

  // `node` and its ancestors become part of the piece.
  void Visit(NodeId node);
  // The last `count` tokens of the path that ends in `last` are to be scored.
  void WantScores(NodeId last, int32_t count);
  void WantWordEnd(NodeId last);
  // `node` and its ancestors are to be computed, scored or not.
  void WantComputed(NodeId node);
  // The same, and the log-normaliser after `node`.
  void WantNext(NodeId node);

  size_t size() const { return visited_.size(); }
  // Whether the cache held a visited node when it was visited.
  bool was_computed(NodeId node) const { return entries_[tree_.mark(node)].was_computed; }

  // Whether Compute computed visited node `i`, in the order of the visits.
  bool computed_here(size_t i) const {
    return !entries_[i].was_computed && tree_.computed(visited_[i]);
  }

  // Fills what is wanted. Throws CacheBudgetError, NumericalError; then only what was there before
  // is left. Afterwards only Close may follow.
  void Compute(Counts* counts);

  void Close();

 private:
  struct Entry {
    int32_t parent = -1;  // index, -1 under a root
    bool was_computed = false;
    bool scored = false, word_end = false, next = false, needed = false;
  };

  void PlanSlots();
  void Forward(const std::vector<NodeId>& missing, Counts* counts);
  void Output();
  void ReleaseUnpublished();

  TokenTree& tree_;
  CausalLM& model_;
  const int64_t max_batch_tokens_;
  std::vector<NodeId> visited_;  // parents before children
  std::vector<Entry> entries_;   // of visited_
};

}  // namespace lmfusion
