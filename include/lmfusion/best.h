#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "lmfusion/history.h"

namespace lmfusion {

// A hypothesis of a list: total = base score + weight * log p(text) + word_insertion_bonus * words.
struct BestHypothesis {
  int64_t index = 0;  // in its list
  // Nats, and the total. Where not exact, neither can be more than this: the bound at which the
  // hypothesis was left.
  double log_prob = 0, total = 0;
  bool exact = false;
};

// What is known of one list.
struct BestList {
  std::vector<BestHypothesis> best;    // n or all there are, best first, equal totals in list order
  std::vector<BestHypothesis> beaten;  // the others, in list order
  // No hypothesis of `beaten` is better than one of `best` by more than this: 0 unless a gap was
  // allowed or the deadline came; infinity where `best` is not exact.
  double gap = 0;
};

struct BestOptions {
  // Of the total; default: those of ScorerOptions. With a weight of 0 the order takes no work, with
  // one below 0 there is no bound, so everything is scored.
  std::optional<double> weight, word_insertion_bonus;
  int64_t n = 1;
  double gap = 0;  // units of the total that the n found may be short of the best
  // Hypotheses less than so much of the total behind the n-th best are finished too: exact in
  // `beaten`, as infinity does with all.
  double within = 0;
  bool eos = false;  // texts end with the end-of-text token
  // Seconds from the call on, as in CallOptions; what is known by then is returned.
  double deadline = std::numeric_limits<double>::infinity();
  std::string cache_namespace;
  History history;
};

}  // namespace lmfusion
