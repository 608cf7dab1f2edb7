#pragma once

#include <arm_neon.h>

#include <cstdint>

// Sixteen lanes in four registers of Arm's Advanced SIMD; see Note [Lanes].
namespace lmfusion {
namespace LMFUSION_SIMD {

struct F {
  float32x4_t a, b, c, d;
};
struct I {
  uint32x4_t a, b, c, d;
};

constexpr int kMaxTokens = 6;
constexpr int kPanelsOfTokens = 1;
constexpr int kMaxInt8Tokens = 12, kTokensInTurn = 1;

inline F Splat(float v) {
  const float32x4_t four = vdupq_n_f32(v);
  return {four, four, four, four};
}
inline F Zero() { return Splat(0); }
inline F Load(const float* p) {
  return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
inline F LoadPart(const float* p, int64_t n) {
  float lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return Load(lanes);
}
inline F LoadHalf(const void* p) {
  const auto* half = static_cast<const float16_t*>(p);
  return {vcvt_f32_f16(vld1_f16(half)), vcvt_f32_f16(vld1_f16(half + 4)),
          vcvt_f32_f16(vld1_f16(half + 8)), vcvt_f32_f16(vld1_f16(half + 12))};
}
inline void Store(float* p, F v) {
  vst1q_f32(p, v.a);
  vst1q_f32(p + 4, v.b);
  vst1q_f32(p + 8, v.c);
  vst1q_f32(p + 12, v.d);
}
inline void StorePart(float* p, int64_t n, F v) {
  float lanes[16];
  Store(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

#define LMFUSION_LANEWISE(type, name, intrinsic)                                                 \
  inline type name(type x, type y) {                                                             \
    return {intrinsic(x.a, y.a), intrinsic(x.b, y.b), intrinsic(x.c, y.c), intrinsic(x.d, y.d)}; \
  }
LMFUSION_LANEWISE(F, Add, vaddq_f32)
LMFUSION_LANEWISE(F, Sub, vsubq_f32)
LMFUSION_LANEWISE(F, Mul, vmulq_f32)
LMFUSION_LANEWISE(F, Div, vdivq_f32)
LMFUSION_LANEWISE(F, Max, vmaxq_f32)  // NaN where one of the two is
LMFUSION_LANEWISE(F, Min, vminq_f32)
LMFUSION_LANEWISE(I, And, vandq_u32)
#undef LMFUSION_LANEWISE
inline F MulAdd(F x, F y, F z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
          vfmaq_f32(z.d, x.d, y.d)};
}
inline F Abs(F x) { return {vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)}; }
inline F Round(F x) { return {vrndnq_f32(x.a), vrndnq_f32(x.b), vrndnq_f32(x.c), vrndnq_f32(x.d)}; }
inline float SumOf(F x) { return vaddvq_f32(vaddq_f32(vaddq_f32(x.a, x.b), vaddq_f32(x.c, x.d))); }
inline float LargestOf(F x) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.b), vmaxq_f32(x.c, x.d)));
}
// Lanes 1, 0, 3, 2, ...
inline F SwapPairs(F x) {
  return {vrev64q_f32(x.a), vrev64q_f32(x.b), vrev64q_f32(x.c), vrev64q_f32(x.d)};
}
inline F KeepMembers(F v, const uint8_t* members, F other) {
  const uint8x16_t bytes = vld1q_u8(members);
  const int8x16_t kept = vreinterpretq_s8_u8(vtstq_u8(bytes, bytes));
  const int16x8_t low = vmovl_s8(vget_low_s8(kept)), high = vmovl_s8(vget_high_s8(kept));
  const auto mask = [](int16x4_t four) { return vreinterpretq_u32_s32(vmovl_s16(four)); };
  return {vbslq_f32(mask(vget_low_s16(low)), v.a, other.a),
          vbslq_f32(mask(vget_high_s16(low)), v.b, other.b),
          vbslq_f32(mask(vget_low_s16(high)), v.c, other.c),
          vbslq_f32(mask(vget_high_s16(high)), v.d, other.d)};
}

inline I LoadWords(const void* p) {
  const auto* bytes = static_cast<const uint8_t*>(p);
  return {vreinterpretq_u32_u8(vld1q_u8(bytes)), vreinterpretq_u32_u8(vld1q_u8(bytes + 16)),
          vreinterpretq_u32_u8(vld1q_u8(bytes + 32)), vreinterpretq_u32_u8(vld1q_u8(bytes + 48))};
}
inline void StoreWords(void* p, I v) {
  auto* const bytes = static_cast<uint8_t*>(p);
  vst1q_u8(bytes, vreinterpretq_u8_u32(v.a));
  vst1q_u8(bytes + 16, vreinterpretq_u8_u32(v.b));
  vst1q_u8(bytes + 32, vreinterpretq_u8_u32(v.c));
  vst1q_u8(bytes + 48, vreinterpretq_u8_u32(v.d));
}
inline I SplatWord(uint32_t v) {
  const uint32x4_t four = vdupq_n_u32(v);
  return {four, four, four, four};
}
inline F AsFloat(I v) {
  return {vreinterpretq_f32_u32(v.a), vreinterpretq_f32_u32(v.b), vreinterpretq_f32_u32(v.c),
          vreinterpretq_f32_u32(v.d)};
}
// Of signed words.
inline F ToFloat(I v) {
  const auto convert = [](uint32x4_t x) { return vcvtq_f32_s32(vreinterpretq_s32_u32(x)); };
  return {convert(v.a), convert(v.b), convert(v.c), convert(v.d)};
}
inline I ToInt(F v) {
  const auto convert = [](float32x4_t x) { return vreinterpretq_u32_s32(vcvtnq_s32_f32(x)); };
  return {convert(v.a), convert(v.b), convert(v.c), convert(v.d)};
}
inline F PowerOfTwo(F n) {
  const I whole = ToInt(n);
  const auto shifted = [](uint32x4_t x) { return vshlq_n_u32(vaddq_u32(x, vdupq_n_u32(127)), 23); };
  return AsFloat({shifted(whole.a), shifted(whole.b), shifted(whole.c), shifted(whole.d)});
}
inline void StoreBytes(void* p, I v) {
  const uint16x8_t low = vcombine_u16(vmovn_u32(v.a), vmovn_u32(v.b));
  const uint16x8_t high = vcombine_u16(vmovn_u32(v.c), vmovn_u32(v.d));
  vst1q_u8(static_cast<uint8_t*>(p), vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
}

template <int kShift>
inline I ShiftRight(I v) {
  if constexpr (kShift == 0) {
    return v;
  } else {
    return {vshrq_n_u32(v.a, kShift), vshrq_n_u32(v.b, kShift), vshrq_n_u32(v.c, kShift),
            vshrq_n_u32(v.d, kShift)};
  }
}
inline F LowHalf(I v) {
  return AsFloat(
      {vshlq_n_u32(v.a, 16), vshlq_n_u32(v.b, 16), vshlq_n_u32(v.c, 16), vshlq_n_u32(v.d, 16)});
}
inline F HighHalf(I v) { return AsFloat(And(v, SplatWord(0xffff0000u))); }
template <int kShift>
inline F Nibble(I v) {
  return ToFloat(And(ShiftRight<kShift>(v), SplatWord(15)));
}
template <int kByte>
inline F Byte(I v) {
  return ToFloat(And(ShiftRight<8 * kByte>(v), SplatWord(255)));
}
inline I LowNibbles(I v) { return And(v, SplatWord(0x0f0f0f0fu)); }
inline I HighNibbles(I v) { return LowNibbles(ShiftRight<4>(v)); }

// sum + x . y of each word: four products of signed bytes.
inline uint32x4_t DotSigned(uint32x4_t sum, uint32x4_t x, uint32x4_t y) {
  const int8x16_t u = vreinterpretq_s8_u32(x), v = vreinterpretq_s8_u32(y);
#if defined(__ARM_FEATURE_DOTPROD)
  return vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(sum), u, v));
#else
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(u), vget_low_s8(v)));
  const int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(u), vget_high_s8(v)));
  return vaddq_u32(sum, vreinterpretq_u32_s32(vpaddq_s32(low, high)));
#endif
}
inline I DotSigned(I sum, I x, I y) {
  return {DotSigned(sum.a, x.a, y.a), DotSigned(sum.b, x.b, y.b), DotSigned(sum.c, x.c, y.c),
          DotSigned(sum.d, x.d, y.d)};
}
// Weights of four bits have no sign.
inline I DotNibbles(I sum, I u, I s) { return DotSigned(sum, u, s); }

// Weights of eight bits, 128 added. Dot() takes them with kAdded added.
struct WeightBytes {
  static constexpr float kAdded = 0;
  I bytes[8];
  void Set(int j, I v) {
    const uint32x4_t added = vdupq_n_u32(0x80808080u);
    bytes[j] = {veorq_u32(v.a, added), veorq_u32(v.b, added), veorq_u32(v.c, added),
                veorq_u32(v.d, added)};
  }
  I Dot(I sum, int j, I s) const { return DotSigned(sum, bytes[j], s); }
};

inline I MagnitudeBits(F v) {
  const auto bits = [](float32x4_t four) { return vreinterpretq_u32_f32(vabsq_f32(four)); };
  return {bits(v.a), bits(v.b), bits(v.c), bits(v.d)};
}
inline uint32_t LargerWords(uint32_t a, uint32_t b) { return a > b ? a : b; }
inline uint32x4_t LargerWords(uint32x4_t a, uint32x4_t b) { return vmaxq_u32(a, b); }
inline I LargerWords(I a, I b) {
  return {vmaxq_u32(a.a, b.a), vmaxq_u32(a.b, b.b), vmaxq_u32(a.c, b.c), vmaxq_u32(a.d, b.d)};
}
inline uint32_t AddWords(uint32_t a, uint32_t b) { return a + b; }
inline uint32x4_t AddWords(uint32x4_t a, uint32x4_t b) { return vaddq_u32(a, b); }
inline I AddWords(I a, I b) {
  return {vaddq_u32(a.a, b.a), vaddq_u32(a.b, b.b), vaddq_u32(a.c, b.c), vaddq_u32(a.d, b.d)};
}
// Lane i: all lanes of v[i].
template <class Combine>
inline I Folded(const I (&v)[16], Combine combine) {
  uint32_t folded[16], lanes[4];
  for (int i = 0; i < 16; ++i) {
    vst1q_u32(lanes, combine(combine(v[i].a, v[i].b), combine(v[i].c, v[i].d)));
    folded[i] = combine(combine(lanes[0], lanes[1]), combine(lanes[2], lanes[3]));
  }
  return LoadWords(folded);
}
inline bool Transposed(const void*, int64_t, int, uint32_t*, int64_t) { return false; }

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
