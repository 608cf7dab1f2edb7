#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear/packed_weight.h"
#include "kernels/rows/rows.h"

namespace lmfusion {

// One of a mixture's gated MLPs. Matrices of several may be held in different formats.
struct GatedExpert {
  PackedWeight gate_up;  // [2 * inner, hidden], first the gate
  PackedWeight down;     // [hidden, inner]
};

// The experts of each token, none twice, and what their results count: [tokens][top_k].
struct ExpertChoices {
  const int64_t* experts;
  const float* weights;
  int64_t tokens, top_k;
};

// y [tokens, hidden] = `residual` (null: 0) + for every token the sum over its experts of
//   weight * down(activation(gate(x)) * up(x)),
// added in the order of the experts' numbers. x, residual [tokens, hidden]. Note [Grouped products]
void SumExperts(const std::vector<GatedExpert>& experts, Activation activation,
                const ExpertChoices& choices, const float* x, const float* residual, float* y);

}  // namespace lmfusion
