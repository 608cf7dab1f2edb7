#pragma once

#include <string>
#include <vector>

#include "base/token_paths.h"
#include "cache/path_scorer.h"

namespace lmfusion {

// As scorer.Score, but a candidate is given up at the first token where its sum falls below its
// pruning threshold: its log_probs are then {-infinity}. thresholds: [candidates], nats; -infinity:
// none.
//
// Note [Pruning]
// Log-probabilities only add up to less, so a partial sum below the threshold settles the
// candidate. Paths are scored one token deeper a round, all candidates in one request, and what a
// round computed is in the cache for the next. A candidate of several paths (casing variants,
// tokens that span the join) is scored whole, as its partial sums do not bound it.
PathScores ScoreWithPruning(PathScorer& scorer, const TokenPaths& paths,
                            const std::vector<double>& thresholds,
                            const std::string& cache_namespace);

}  // namespace lmfusion
