#pragma once

#include <torch/csrc/jit/api/module.h>

namespace lmfusion {

// Joins operators of a graph whose weights are packed, so that what one makes stays in the cache
// for the next, and threads meet less often:
//   a norm and the product of it alone           -> lmfusion::normalized_linear
//   these, an activation and the product of it   -> lmfusion::feed_forward
// The numbers have the same bits as before. What has a form not known here stays as it is.
void JoinOperators(torch::jit::Module& module);

}  // namespace lmfusion
