#pragma once

#include <vector>

#include "base/token_paths.h"

namespace lmfusion {

// From the log-probabilities of paths to those of candidates, nats: see TokenPaths.

// [alternatives]
std::vector<double> AlternativeSums(const TokenPaths& paths, const PathScores& scores);
// [candidates]
std::vector<double> CandidateSums(const TokenPaths& paths, const PathScores& scores);

}  // namespace lmfusion
