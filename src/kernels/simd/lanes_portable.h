#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/device/numbers.h"

// Sixteen lanes in plain loops, which a compiler turns into the vectors it may use; see
// Note [Lanes].
namespace lmfusion {
namespace LMFUSION_SIMD {

struct F {
  float v[16];
};
struct I {
  uint32_t v[16];
};

constexpr int kMaxTokens = 4;
constexpr int kPanelsOfTokens = 1;
constexpr int kMaxInt8Tokens = kMaxTokens;

#define LMFUSION_EACH_LANE(type, expression)          \
  type r;                                             \
  for (int i = 0; i < 16; ++i) r.v[i] = (expression); \
  return r

inline F Zero() { return F{}; }
inline F Splat(float x) { LMFUSION_EACH_LANE(F, x); }
inline F Load(const float* p) { LMFUSION_EACH_LANE(F, p[i]); }
inline F LoadPart(const float* p, int64_t n) {
  F r = Zero();
  for (int64_t i = 0; i < n; ++i) r.v[i] = p[i];
  return r;
}
inline F LoadHalf(const void* p) {
  uint16_t half[16];
  std::memcpy(half, p, sizeof(half));
  LMFUSION_EACH_LANE(F, ToFloat(Float16{half[i]}));
}
inline void Store(float* p, F x) { std::memcpy(p, x.v, sizeof(x.v)); }
inline void StorePart(float* p, int64_t n, F x) {
  for (int64_t i = 0; i < n; ++i) p[i] = x.v[i];
}
inline F Add(F x, F y) { LMFUSION_EACH_LANE(F, x.v[i] + y.v[i]); }
inline F Sub(F x, F y) { LMFUSION_EACH_LANE(F, x.v[i] - y.v[i]); }
inline F Mul(F x, F y) { LMFUSION_EACH_LANE(F, x.v[i] * y.v[i]); }
inline F Div(F x, F y) { LMFUSION_EACH_LANE(F, x.v[i] / y.v[i]); }
inline F MulAdd(F x, F y, F z) { LMFUSION_EACH_LANE(F, x.v[i] * y.v[i] + z.v[i]); }
inline F Max(F x, F y) { LMFUSION_EACH_LANE(F, x.v[i] > y.v[i] ? x.v[i] : y.v[i]); }
inline F Min(F x, F y) { LMFUSION_EACH_LANE(F, x.v[i] < y.v[i] ? x.v[i] : y.v[i]); }
inline F Abs(F x) { LMFUSION_EACH_LANE(F, __builtin_fabsf(x.v[i])); }
// In a number this large the last bit is worth one: adding it rounds to the nearest whole number
// (the even one of two), which are its low bits. For magnitudes below 2^22; NaN stays, and has
// some bits or other.
constexpr float kWhole = 12582912.0f;  // 1.5 * 2^23
inline F Round(F x) { LMFUSION_EACH_LANE(F, (x.v[i] + kWhole) - kWhole); }
inline float SumOf(F x) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) x.v[i] += x.v[i + half];
  }
  return x.v[0];
}
inline float LargestOf(F x) {
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) x.v[i] = x.v[i] > x.v[i + half] ? x.v[i] : x.v[i + half];
  }
  return x.v[0];
}
// Lanes 1, 0, 3, 2, ...
inline F SwapPairs(F x) { LMFUSION_EACH_LANE(F, x.v[i ^ 1]); }
inline F KeepMembers(F x, const uint8_t* members, F other) {
  LMFUSION_EACH_LANE(F, members[i] ? x.v[i] : other.v[i]);
}

inline I LoadWords(const void* p) {
  I r;
  std::memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline void StoreWords(void* p, I x) { std::memcpy(p, x.v, sizeof(x.v)); }
inline I SplatWord(uint32_t x) { LMFUSION_EACH_LANE(I, x); }
inline F AsFloat(I x) {
  F r;
  std::memcpy(r.v, x.v, sizeof(r.v));
  return r;
}
inline F ToFloat(I x) { LMFUSION_EACH_LANE(F, static_cast<float>(static_cast<int32_t>(x.v[i]))); }
inline I ToInt(F x) { LMFUSION_EACH_LANE(I, FloatBits(x.v[i] + kWhole) - FloatBits(kWhole)); }
inline F PowerOfTwo(F n) {
  const I whole = ToInt(n);
  I bits;
  for (int i = 0; i < 16; ++i) bits.v[i] = (whole.v[i] + 127) << 23;
  return AsFloat(bits);
}
inline void StoreBytes(void* p, I x) {
  for (int i = 0; i < 16; ++i) static_cast<uint8_t*>(p)[i] = static_cast<uint8_t>(x.v[i]);
}

inline I ShiftLeft(I x, int n) { LMFUSION_EACH_LANE(I, x.v[i] << n); }
inline I ShiftRight(I x, int n) { LMFUSION_EACH_LANE(I, x.v[i] >> n); }
inline I And(I x, uint32_t mask) { LMFUSION_EACH_LANE(I, x.v[i] & mask); }
inline F LowHalf(I x) { return AsFloat(ShiftLeft(x, 16)); }
inline F HighHalf(I x) { return AsFloat(And(x, 0xffff0000u)); }
template <int kShift>
inline F Nibble(I x) {
  return ToFloat(And(ShiftRight(x, kShift), 15));
}
template <int kByte>
inline F Byte(I x) {
  return ToFloat(And(ShiftRight(x, 8 * kByte), 255));
}

inline I MagnitudeBits(F x) { LMFUSION_EACH_LANE(I, FloatBits(x.v[i]) & 0x7fffffffu); }
inline uint32_t LargerWords(uint32_t x, uint32_t y) { return x > y ? x : y; }
inline I LargerWords(I x, I y) { LMFUSION_EACH_LANE(I, LargerWords(x.v[i], y.v[i])); }
inline uint32_t AddWords(uint32_t x, uint32_t y) { return x + y; }
inline I AddWords(I x, I y) { LMFUSION_EACH_LANE(I, AddWords(x.v[i], y.v[i])); }
// Lane i: all lanes of v[i].
template <class Combine>
inline I Folded(const I (&v)[16], Combine combine) {
  I r;
  for (int i = 0; i < 16; ++i) {
    r.v[i] = v[i].v[0];
    for (int lane = 1; lane < 16; ++lane) r.v[i] = combine(r.v[i], v[i].v[lane]);
  }
  return r;
}
inline bool Transposed(const void*, int64_t, int, uint32_t*, int64_t) { return false; }
#undef LMFUSION_EACH_LANE

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
