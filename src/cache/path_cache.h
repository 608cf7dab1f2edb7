#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cache/cache_snapshot.h"
#include "cache/call.h"
#include "cache/held_paths.h"
#include "cache/namespaces.h"
#include "cache/path_scorer.h"
#include "lmfusion/stats.h"
#include "tree/causal_lm.h"
#include "tree/node_numbers.h"
#include "tree/token_tree.h"

namespace lmfusion {

// A model with what the cache keeps of its work, and the work of calls on both. Not thread safe:
// the leader of a queue uses it. Where a method throws, the cache holds what it held before, but
// for what made room.
class PathCache {
 public:
  // Throws CacheBudgetError where kv_cache_bytes does not hold two tokens.
  PathCache(std::unique_ptr<CausalLM> model, PathScorerOptions options);

  const CausalLM& model() const { return *model_; }

  // Does the calls of a list, linked by `next`, in the way of the options' mode, and marks them as
  // settled; stops where one of them is withdrawn. Throws nothing: what goes wrong is the `error`
  // of a call. If the joint work fails, every call is tried alone, so that each gets its own error.
  void DoCalls(Call* first, Stats* counters) noexcept;

  // Fills in the scores of every path on its own, in any mode.
  void ScoreUncached(const TokenPaths& paths, PathScores* scores, Stats* counters);
  // Fills in what the tree knows; what it does not stays. Mode "tree".
  void FillKnown(const TokenPaths& paths, const std::string& cache_namespace,
                 PathScores* known) const;
  int64_t capacity() const { return capacity_; }

  // As PathScorer's methods of these names; mode "tree".
  int64_t Prime(const TokenPaths& paths, const std::string& cache_namespace, Stats* counters);
  int64_t Save(const std::string& file, const TokenPaths* paths,
               const std::string& cache_namespace);
  int64_t Load(const std::string& file, const std::string& cache_namespace);
  void Clear(const std::string* cache_namespace) noexcept;  // null: all

  // What is held is given up last; any thread may add to it at any time.
  HeldPaths& held() { return held_; }

  // After each work: keeps to the budget.
  void Trim() noexcept {
    if (tree_.bytes() > options_.kv_cache_bytes) UseHeld();
    tree_.Trim();
    namespaces_.ForgetSome();
  }

  int64_t evictions() const { return tree_.evictions(); }
  int64_t bytes() const { return tree_.bytes(); }
  int64_t cached_tokens() const { return tree_.slots_in_use(); }

 private:
  // The calls from `first` up to `end`. What they cost counts where they fail, but for the tokens
  // that the cache held: the next try finds them again.
  void Try(Call* first, const Call* end, Stats* counters);
  void InTree(Call* first, const Call* end, Stats* counters);
  void Grouped(Call* call, Stats* counters);
  void Uncached(Call* call, Stats* counters);

  // Makes what is held the most recently used. Returns how many tokens the tree has of it.
  int64_t UseHeld() noexcept;

  // bytes: of all but the roots of the namespaces.
  bool Holds(int64_t bytes) const { return bytes + namespaces_.bytes() <= options_.kv_cache_bytes; }
  void CheckHolds(int64_t bytes) const;
  void CheckCapacity(const TokenPaths::Path& path) const;

  const std::unique_ptr<CausalLM> model_;
  const PathScorerOptions options_;
  const int64_t capacity_;  // tokens
  const SnapshotOwner owner_;
  TokenTree tree_;
  Namespaces namespaces_;
  NodeNumbers numbers_;
  HeldPaths held_;
  Call* at_work_ = nullptr;  // the list that DoCalls or Prime is called for
};

}  // namespace lmfusion
