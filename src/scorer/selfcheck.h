#pragma once

#include "base/token_paths.h"
#include "lmfusion/options.h"

namespace lmfusion {

// Scores of the same paths with and without the cache.

// Of a token or the end of a word, nats; infinity where one of two numbers is NaN.
double LargestDifference(const PathScores& one, const PathScores& other);

// The most that rounding explains, nats.
double SelfcheckTolerance(const ScorerOptions& options);

}  // namespace lmfusion
