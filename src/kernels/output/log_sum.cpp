#include "kernels/output/log_sum.h"

#include <algorithm>

namespace lmfusion {

float ValueOf(const LogSum* sums, int64_t count, int64_t step) {
  float largest = EmptyLogSum().largest;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, sums[i * step].largest);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const LogSum& part = sums[i * step];
    const bool empty = part.sum == 0;  // its largest may be -inf
    if (!empty) sum += static_cast<double>(part.sum) * std::exp(part.largest - largest);
  }
  return sum == 0 ? EmptyLogSum().largest : static_cast<float>(std::log(sum) + largest);
}

}  // namespace lmfusion
