#pragma once

#include <vector>

#include "base/token_paths.h"
#include "lmfusion/scorer.h"

namespace lmfusion {

// The tokens of the likeliest alternative of a single candidate. Text and score are left to the
// caller.
Explanation ExplainTokens(const TokenPaths& paths, const PathScores& scores,
                          const std::vector<std::vector<bool>>& reused, const Tokenizer& tokenizer);

}  // namespace lmfusion
