#pragma once

#include "kernels/simd/lanes.h"

namespace lmfusion {
namespace LMFUSION_SIMD {

// exp(x) within 2 units in the last place; that of -87 below and of 88 above; NaN stays.
inline F Exp(F x) {
  x = Max(Splat(-87.0f), Min(Splat(88.0f), x));  // of two, one of them NaN, the second
  const F n = Round(Mul(x, Splat(1.44269504f)));
  F r = MulAdd(n, Splat(-0.693145752f), x);
  r = MulAdd(n, Splat(-1.42860677e-6f), r);
  F p = Splat(1.0f / 5040);
  p = MulAdd(p, r, Splat(1.0f / 720));
  p = MulAdd(p, r, Splat(1.0f / 120));
  p = MulAdd(p, r, Splat(1.0f / 24));
  p = MulAdd(p, r, Splat(1.0f / 6));
  p = MulAdd(p, r, Splat(0.5f));
  p = MulAdd(p, r, Splat(1.0f));
  p = MulAdd(p, r, Splat(1.0f));
  return Mul(p, PowerOfTwo(n));
}

inline float ExpOf(float x) {
  float lanes[kLanes];
  Store(lanes, Exp(Splat(x)));
  return lanes[0];
}

// 1 / (1 + exp(-x))
inline F Sigmoid(F x) { return Div(Splat(1.0f), Add(Splat(1.0f), Exp(Sub(Zero(), x)))); }

// cap * tanh(x / cap), where tanh z = 1 - 2 / (exp 2z + 1).
inline F SoftCapped(F x, float cap) {
  const F twice = Mul(x, Splat(2 / cap));
  const F ratio = Div(Splat(2.0f), Add(Exp(twice), Splat(1.0f)));
  return Mul(Splat(cap), Sub(Splat(1.0f), ratio));
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
