#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/token_paths.h"
#include "cache/path_scorer.h"
#include "lmfusion/best.h"
#include "tree/token_tree.h"

namespace lmfusion {

// Lists of hypotheses, one list after another. Each is a candidate of `paths` with one alternative,
// whose paths of sign 1 only add up to less. What paths of sign -1 add is asked before all else,
// and is the same for most hypotheses: tokens of a history that the text changes.
struct HypothesisLists {
  TokenPaths paths;
  std::vector<size_t> ends;   // [lists] of the hypotheses up to each list's end
  std::vector<double> base;   // [hypotheses]; not NaN, not +infinity
  std::vector<double> bonus;  // [hypotheses], for words
};

struct BestSearchOptions {
  double weight = 1;
  int64_t n = 1;
  double gap = 0;
  double within = 0;  // of the n-th best: is not beaten
  int64_t max_batch_tokens = 512;
  bool shares_prefixes = true;  // the scorer keeps what a round computed for the next
};

// Note [Best of a list]
// A token's log-probability is never above 0, so what is known of a hypothesis bounds its total
// from above. One whose bound is below the n-th best finished total is beaten, whatever its other
// tokens are. (With `within`, one whose bound is below by more than that.) Which tokens a proof
// needs is known only at its end: those whose bound before them is above that total. Each pass
// takes the tokens that are likeliest to be needed: the total to beat is guessed from the mean
// log-probability of the tokens seen so far, and a token counts by how far its guessed bound is
// above that. A pass of few tokens takes as long as one of some more, so up to a sixteenth of
// max_batch_tokens is filled with the next likely ones; beyond that only what is above the guess by
// a margin is taken. All lists take part in every pass, as far as the cache holds their texts. The
// guess decides how much is computed and in what order, never a result.
//
// Not thread safe; the PathScorer may be at work for others too.
class BestSearch {
 public:
  BestSearch(PathScorer& scorer, HypothesisLists lists, BestSearchOptions options,
             std::string cache_namespace);

  bool done() const { return open_lists_.empty(); }
  // One pass. Throws as PathScorer::Score.
  void Round();
  // Hypotheses whose place is settled: finished, or beaten.
  int64_t settled() const;
  // Of every list, as far as it is known.
  std::vector<BestList> Results() const;

 private:
  // A token that is scored, or the end of a word, as nodes of a tree of this search's own.
  struct Hypothesis {
    size_t path_begin = 0, path_end = 0;
    double log_prob = 0, total = 0;  // at most
    int64_t unknown = 0;             // items
    bool bounded = true;             // all that is subtracted is known
  };
  struct List {
    size_t begin = 0, end = 0;     // hypotheses
    std::vector<size_t> open;      // neither finished nor beaten
    std::vector<size_t> finished;  // best first
    int64_t nodes = 0;             // that no list before it had
  };
  struct Step {
    double slack;  // of the guessed bound above the guessed total to beat
    size_t path_end, path, item;
    bool operator<(const Step& other) const { return slack < other.slack; }
  };

  void AddPaths();
  void Admit();
  void Settle();
  void SettleList(List* list);
  void Bound(size_t hypothesis);
  double Total(size_t hypothesis, double log_prob) const;
  bool Better(size_t a, size_t b) const;
  bool IsBeaten(size_t hypothesis, const List& list) const;

  void PlanPass();
  double GuessedLoss() const;
  double GuessedToBeat(const List& list, double a_token) const;
  bool NextUnknown(size_t path_end, size_t* path, size_t* item) const;
  NodeId Item(size_t path, size_t item) const { return items_[item_begin_[path] + item]; }
  size_t ItemCount(size_t path) const { return item_begin_[path + 1] - item_begin_[path]; }
  bool IsKnown(NodeId node) const;
  void AskSubtracted(TokenPaths* asked, std::vector<size_t>* path_of);
  void AskWhole(TokenPaths* asked, std::vector<size_t>* path_of);
  void AskPlanned(TokenPaths* asked, std::vector<size_t>* path_of);
  void Ask(size_t path, size_t first, size_t last, TokenPaths* asked, std::vector<size_t>* path_of);
  void Learn(const TokenPaths& asked, const std::vector<size_t>& path_of, const PathScores& scores);

  PathScorer& scorer_;
  const HypothesisLists lists_;
  const BestSearchOptions options_;
  const std::string cache_namespace_;
  TokenTree tree_;                  // of the paths, with the log-probabilities that are known
  std::vector<size_t> item_begin_;  // [paths + 1]
  std::vector<NodeId> items_;
  std::vector<Hypothesis> hypotheses_;
  std::vector<List> all_;
  std::vector<size_t> open_lists_;
  size_t next_list_ = 0;  // the first that does not take part yet
  int64_t nodes_open_ = 0;
  std::vector<bool> planned_;  // [nodes] that this pass computes
  std::vector<bool> asked_;    // [nodes] whose log-probability this pass asks for
  double known_sum_ = 0;
  int64_t known_ = 0;
};

}  // namespace lmfusion
