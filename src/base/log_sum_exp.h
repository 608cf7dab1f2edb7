#pragma once

#include <vector>

namespace lmfusion {

// log(sum(exp(values))), of at least one value; -infinity where all are.
double LogSumExp(const std::vector<double>& values);

}  // namespace lmfusion
