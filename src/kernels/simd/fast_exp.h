#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/simd/clones.h"

namespace lmfusion {

// exp(x) as 2^n * p(r) within 2e-7 of it, relatively; that of -87 below and of 88 above; NaN stays.
// Plain arithmetic without branches: a loop over it becomes vector code, in functions that are
// built for several instruction sets (kernels/simd/clones.h) too.
LMFUSION_INLINE float FastExp(float x) {
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const float n = std::nearbyint(x * 1.44269504088896341f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  union {
    int32_t bits;
    float value;
  } power{(static_cast<int32_t>(n) + 127) << 23};
  return p * power.value;
}

}  // namespace lmfusion
