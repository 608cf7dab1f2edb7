#include "kernels/rows/rows.h"
#include "kernels/simd/exp.h"

namespace lmfusion {
namespace LMFUSION_SIMD {
namespace {

void AddRow(const float* x, int64_t n, float* y) {
  ForLanes(n, [&](int64_t i, int64_t lanes) {
    StoreUpTo(y + i, lanes, Add(LoadUpTo(y + i, lanes), LoadUpTo(x + i, lanes)));
  });
}

void AddScaled(const float* x, float scale, int64_t n, float* y) {
  const F scales = Splat(scale);
  ForLanes(n, [&](int64_t i, int64_t lanes) {
    StoreUpTo(y + i, lanes, MulAdd(scales, LoadUpTo(y + i, lanes), LoadUpTo(x + i, lanes)));
  });
}

// Lanes from n on zero.
inline F KeepFirst(F x, int64_t n) {
  if (n == kLanes) return x;
  float lanes[kLanes];
  Store(lanes, x);
  return LoadPart(lanes, n);
}

void NormalizeRow(const float* x, const RowNorm& norm, int64_t n, float* y) {
  float mean = 0;
  if (norm.centered) {
    F sum = Zero();
    ForLanes(n, [&](int64_t i, int64_t lanes) { sum = Add(sum, LoadUpTo(x + i, lanes)); });
    mean = SumOf(sum) / static_cast<float>(n);
  }
  const F means = Splat(mean);
  F squares = Zero();
  ForLanes(n, [&](int64_t i, int64_t lanes) {
    const F off = KeepFirst(Sub(LoadUpTo(x + i, lanes), means), lanes);
    squares = MulAdd(off, off, squares);
  });
  const float variance = SumOf(squares) / static_cast<float>(n) + norm.epsilon;
  const F scale = Splat(1.0f / __builtin_sqrtf(variance));
  ForLanes(n, [&](int64_t i, int64_t lanes) {
    F z = Mul(Sub(LoadUpTo(x + i, lanes), means), scale);
    if (norm.weight != nullptr) z = Mul(z, LoadUpTo(norm.weight + i, lanes));
    if (norm.bias != nullptr) z = Add(z, LoadUpTo(norm.bias + i, lanes));
    StoreUpTo(y + i, lanes, z);
  });
}

void RotateHalves(const float* x, const HeadRotation& r, float* y) {
  const int64_t half = r.n / 2;
  ForLanes(half, [&](int64_t i, int64_t lanes) {
    const F first = LoadUpTo(x + i, lanes), second = LoadUpTo(x + half + i, lanes);
    const F cos_first = LoadUpTo(r.cos + i, lanes), cos_second = LoadUpTo(r.cos + half + i, lanes);
    const F sin_first = LoadUpTo(r.sin + i, lanes), sin_second = LoadUpTo(r.sin + half + i, lanes);
    StoreUpTo(y + i, lanes, Sub(Mul(first, cos_first), Mul(second, sin_first)));
    StoreUpTo(y + half + i, lanes, MulAdd(first, sin_second, Mul(second, cos_second)));
  });
}

void RotatePairs(const float* x, const HeadRotation& r, float* y) {
  const float signs[kLanes] = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
  const F sign = Load(signs);
  ForLanes(r.n, [&](int64_t i, int64_t lanes) {  // an even number of lanes
    const F pairs = LoadUpTo(x + i, lanes);
    const F turned = Mul(Mul(SwapPairs(pairs), sign), LoadUpTo(r.sin + i, lanes));
    StoreUpTo(y + i, lanes, MulAdd(pairs, LoadUpTo(r.cos + i, lanes), turned));
  });
}

void RotateHead(const float* x, const HeadRotation& rotation, int64_t dim, float* y) {
  if (rotation.interleaved) {
    RotatePairs(x, rotation, y);
  } else {
    RotateHalves(x, rotation, y);
  }
  std::memcpy(y + rotation.n, x + rotation.n, (dim - rotation.n) * sizeof(float));
}

struct Silu {
  static F Of(F x) { return Mul(x, Sigmoid(x)); }
};

// x * Phi(x) = max(x, 0) - |x| / 2 * erfc(|x| / sqrt(2)), where erfc(z) = t * P(t) * exp(-z^2) with
// t = 1 / (1 + 0.3275911 z), within 1.5e-7 (Abramowitz & Stegun 1964, 7.1.26).
struct Gelu {
  static F Of(F x) {
    const F size = Abs(x);
    const F z = Mul(size, Splat(0.70710678f));
    const F t = Div(Splat(1.0f), MulAdd(z, Splat(0.3275911f), Splat(1.0f)));
    F p = Splat(1.061405429f);
    p = MulAdd(p, t, Splat(-1.453152027f));
    p = MulAdd(p, t, Splat(1.421413741f));
    p = MulAdd(p, t, Splat(-0.284496736f));
    p = MulAdd(p, t, Splat(0.254829592f));
    const F erfc = Mul(Mul(p, t), Exp(Sub(Zero(), Mul(z, z))));
    // Beyond this size erfc is 0 in float32, and infinity times 0 would be no number.
    const F half = Mul(Min(Splat(20.0f), size), Splat(0.5f));
    return Sub(Max(Zero(), x), Mul(half, erfc));
  }
};

struct GeluTanh {
  static F Of(F x) {
    constexpr float kTwiceRoot = 1.5957691216057308f;  // 2 * sqrt(2 / pi)
    const F cubic = Mul(Mul(x, x), Mul(x, Splat(0.044715f)));
    return Mul(x, Sigmoid(Mul(Splat(kTwiceRoot), Add(x, cubic))));
  }
};

struct Relu {
  static F Of(F x) { return Max(Zero(), x); }  // of two, one of them NaN, the second
};

template <class Function>
struct Gated {
  static F Of(F gate, F up) { return Mul(Function::Of(gate), up); }
};

struct ClampedSilu {
  static F Of(F gate, F up) {
    const F g = Min(Splat(7), gate), u = Max(Splat(-7), Min(Splat(7), up));
    return Mul(Mul(Add(u, Splat(1)), g), Sigmoid(Mul(g, Splat(1.702f))));
  }
};

template <class Function>
void GateWith(const GateRows& g) {
  for (int64_t row = 0; row < g.rows; ++row) {
    const float *gate = g.gate + row * g.gate_stride, *up = g.up + row * g.up_stride;
    float* const y = g.y + row * g.y_stride;
    ForLanes(g.n, [&](int64_t i, int64_t lanes) {
      StoreUpTo(y + i, lanes, Function::Of(LoadUpTo(gate + i, lanes), LoadUpTo(up + i, lanes)));
    });
  }
}

template <class Function>
void Gate(const GateRows& g) {
  if (g.up != nullptr) return GateWith<Gated<Function>>(g);
  for (int64_t row = 0; row < g.rows; ++row) {
    const float* const gate = g.gate + row * g.gate_stride;
    float* const y = g.y + row * g.y_stride;
    ForLanes(g.n, [&](int64_t i, int64_t lanes) {
      StoreUpTo(y + i, lanes, Function::Of(LoadUpTo(gate + i, lanes)));
    });
  }
}

}  // namespace

const RowKernels kRowKernels = {
    &AddRow,
    &AddScaled,
    &NormalizeRow,
    &RotateHead,
    {&Gate<Silu>, &Gate<Gelu>, &Gate<GeluTanh>, &Gate<Relu>, &GateWith<ClampedSilu>}};

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
