#pragma once

#include <cstdint>

namespace lmfusion {

// Of each row of logits [tokens][experts], the `top_k` (1 to `experts`) largest, the largest first:
// their numbers and weights [tokens][top_k]. Weights are the softmax of all logits, or of the
// chosen ones alone if `normalized`. Of equal logits the one with the lower number comes first; one
// that is NaN counts as the largest, and makes all weights of its row NaN.
void ChooseExperts(const float* logits, int64_t tokens, int64_t experts, int64_t top_k,
                   bool normalized, int64_t* numbers, float* weights);

}  // namespace lmfusion
