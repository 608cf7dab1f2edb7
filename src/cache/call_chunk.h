#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "cache/call.h"
#include "lmfusion/stats.h"
#include "tree/causal_lm.h"
#include "tree/pinned_paths.h"

namespace lmfusion {

// A call of those at work ends early; what was computed is in the tree, no scores were read.
struct EndedEarly {};

// A chunk of the work of one or more calls: as many of their paths as the cache holds at once,
// nearly always all. Add the paths, Run once; what it ran for is read into the calls' scores, and
// when the chunk goes, its nodes may be evicted again.
class CallChunk {
 public:
  // numbers: of this chunk alone while it lives. at_work: the list of calls, linked by `next`, that
  // may end early.
  CallChunk(TokenTree& tree, CausalLM& model, NodeNumbers& numbers, int64_t max_batch_tokens,
            Call* at_work)
      : tree_(tree),
        model_(model),
        max_batch_tokens_(max_batch_tokens),
        at_work_(at_work),
        paths_(tree, numbers) {}

  // Adds a path of `call`, below `root`.
  void Add(NodeId root, Call* call, size_t path_index);

  // Tokens, shared ones once.
  int64_t size() const { return paths_.size(); }

  // Computes what is missing and fills the calls' scores and reports. Throws CacheBudgetError,
  // NumericalError, and what the model throws; then the tree holds what it held before. Throws
  // EndedEarly.
  void Run(Stats* counters);

 private:
  struct Member {
    Call* call;
    size_t path_index;
    int32_t last;        // index of the last token
    int32_t begin, end;  // indices of the nodes that no member before it had
  };
  // Paths of a call, the first of which is its first_path-th that is worked on.
  struct Share {
    Call* call;
    int64_t first_path, paths;
  };
  // What is to be known of a node. Flags that the tree has an answer for go out in PlanSlots.
  struct Wanted {
    bool log_prob = false, normalizer = false, word_end = false;
    bool computed = false;
  };
  // What the model is asked, and which nodes (indices) the answers are of.
  struct Questions {
    OutputQuestions asked;
    std::vector<int32_t> normalizer_of, logit_of;
  };

  int32_t Walk(NodeId root, int32_t from, const int32_t* tokens, size_t count);
  void PlanSlots();
  Questions MakeQuestions() const;
  bool Forward(const std::vector<int32_t>& missing, Stats* counters);
  bool GoesOn(size_t computed, size_t missing) const;
  void Publish(const Questions& questions, const OutputAnswers& answers);
  void ReadReused(const Member& member) const;
  void ReadScores(const Member& member) const;

  TokenTree& tree_;
  CausalLM& model_;
  const int64_t max_batch_tokens_;
  Call* const at_work_;
  PinnedPaths paths_;
  std::vector<Wanted> wanted_;  // of paths_
  std::vector<Member> members_;
  std::vector<Share> shares_;
  // The index of the last token of each prefix that paths share.
  std::map<std::tuple<NodeId, const TokenPaths::Tokens*, int32_t>, int32_t> prefixes_;
};

}  // namespace lmfusion
