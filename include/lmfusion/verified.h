#pragma once

#include <string>
#include <vector>

#include "lmfusion/best.h"
#include "lmfusion/scorer.h"

namespace lmfusion {

// The n best texts of each list by `exact`, where `cheap` (the same model in int8, or a smaller
// one) decides which texts `exact` is asked for: those that `cheap` puts less than |weight| *
// margin of the total behind its n-th best. Both models are in memory.
//
// What is in `best` has the numbers of exact.best(), and they are the n best of all if no error of
// `cheap` put one of them further behind: a margin in nats that was measured (docs/verify.md),
// never a proof. So where `cheap` alone left a text, its bound and the gap of its list are
// infinity. With a margin of infinity `cheap` is not asked, and the result is that of exact.best().
//
// base_scores, options: those of best(); weights that are not given are those of `exact`, `within`
// and the gap are for `exact`. A deadline holds for both: texts that `cheap` could not rule out in
// time are left to `exact`.
//
// Throws std::invalid_argument for a margin that is NaN or below 0, and what best() throws.
std::vector<BestList> VerifiedBest(LMFusionScorer& cheap, LMFusionScorer& exact, double margin,
                                   const std::vector<std::vector<std::string>>& lists,
                                   const std::vector<std::vector<double>>& base_scores,
                                   BestOptions options = {});

}  // namespace lmfusion
