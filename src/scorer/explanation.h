#pragma once

#include <vector>

#include "lmfusion/scorer.h"
#include "base/token_paths.h"

namespace lmfusion {

// The tokens of the likeliest alternative of a single candidate. Text and score are left to the
// caller.
Explanation ExplainTokens(const TokenPaths& paths, const PathScores& scores,
                          const std::vector<std::vector<bool>>& reused,
                          const Tokenizer& tokenizer);

}  // namespace lmfusion
