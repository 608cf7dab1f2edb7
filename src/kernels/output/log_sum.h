#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/device/numbers.h"

namespace lmfusion {

// The logarithm of a sum of exponentials so far: largest + log(sum).
struct LogSum {
  float largest, sum;
};
LMFUSION_HOST_DEVICE LogSum EmptyLogSum() { return {FloatOf(0xff800000u), 0.0f}; }

LMFUSION_HOST_DEVICE LogSum Combined(LogSum a, LogSum b) {
  const float largest = fmaxf(a.largest, b.largest);
  float sum = 0;
  if (a.sum > 0) sum += a.sum * expf(a.largest - largest);
  if (b.sum > 0) sum += b.sum * expf(b.largest - largest);
  // A NaN among the logits must reach the result: fmaxf and the comparisons pass it by.
  if (a.sum != a.sum || b.sum != b.sum) sum = a.sum + b.sum;
  return {largest, sum};
}

// In nats; -inf of an empty sum.
LMFUSION_HOST_DEVICE float ValueOf(LogSum sum) { return sum.largest + logf(sum.sum); }

// Of `count` sums, `step` apart; joined in float64.
float ValueOf(const LogSum* sums, int64_t count, int64_t step);

}  // namespace lmfusion
