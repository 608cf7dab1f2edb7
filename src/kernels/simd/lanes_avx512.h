#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/device/numbers.h"

// Sixteen lanes in one AVX-512 register; see Note [Lanes].
namespace lmfusion {
namespace LMFUSION_SIMD {

using F = __m512;
using I = __m512i;

// Of 32 registers, 24 hold sums: of two panels, so that an input that is read serves two
// instructions. Products of bytes keep a block's words in eight.
constexpr int kMaxTokens = 12;
constexpr int kPanelsOfTokens = 2;
constexpr int kMaxInt8Tokens = 16, kTokensInTurn = 4;

inline F Zero() { return _mm512_setzero_ps(); }
inline F Splat(float v) { return _mm512_set1_ps(v); }
inline F Load(const float* p) { return _mm512_loadu_ps(p); }
inline F LoadPart(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
}
inline F LoadHalf(const void* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
}
inline void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
inline void StorePart(float* p, int64_t n, F v) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
}
inline F Add(F a, F b) { return _mm512_add_ps(a, b); }
inline F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F Div(F a, F b) { return _mm512_div_ps(a, b); }
inline F MulAdd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F Max(F a, F b) { return _mm512_max_ps(a, b); }
inline F Min(F a, F b) { return _mm512_min_ps(a, b); }
inline F Abs(F a) { return _mm512_abs_ps(a); }
inline F Round(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT); }
inline float SumOf(F a) { return _mm512_reduce_add_ps(a); }
inline float LargestOf(F a) { return _mm512_reduce_max_ps(a); }
// Lanes 1, 0, 3, 2, ...
inline F SwapPairs(F a) { return _mm512_permute_ps(a, 0xb1); }
inline F KeepMembers(F v, const uint8_t* members, F other) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(members));
  return _mm512_mask_mov_ps(other, _mm_test_epi8_mask(bytes, bytes), v);
}

inline I LoadWords(const void* p) { return _mm512_loadu_si512(p); }
inline void StoreWords(void* p, I v) { _mm512_storeu_si512(p, v); }
inline I SplatWord(uint32_t v) { return _mm512_set1_epi32(static_cast<int>(v)); }
inline F AsFloat(I v) { return _mm512_castsi512_ps(v); }
inline F ToFloat(I v) { return _mm512_cvtepi32_ps(v); }
inline I ToInt(F v) { return _mm512_cvtps_epi32(v); }
inline F PowerOfTwo(F n) {
  const I biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}
inline void StoreBytes(void* p, I v) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}

inline F LowHalf(I v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
inline F HighHalf(I v) {
  return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(0xffff0000)));
}
// A table look-up reads the low four bits of each word: no mask, no conversion.
template <int kShift>
inline F Nibble(I v) {
  const F table = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_permutexvar_ps(kShift == 0 ? v : _mm512_srli_epi32(v, kShift), table);
}
template <int kByte>
inline F Byte(I v) {
  constexpr char kNone = -128;
  const I pick = _mm512_broadcast_i32x4(_mm_setr_epi8(kByte, kNone, kNone, kNone, kByte + 4, kNone,
                                                      kNone, kNone, kByte + 8, kNone, kNone, kNone,
                                                      kByte + 12, kNone, kNone, kNone));
  return _mm512_cvtepi32_ps(_mm512_shuffle_epi8(v, pick));
}
inline I LowNibbles(I v) { return _mm512_and_si512(v, _mm512_set1_epi32(0x0f0f0f0f)); }
inline I HighNibbles(I v) {
  return _mm512_and_si512(_mm512_srli_epi32(v, 4), _mm512_set1_epi32(0x0f0f0f0f));
}
// sum + u . s of each word: four products of unsigned and signed bytes.
inline I DotNibbles(I sum, I u, I s) { return _mm512_dpbusd_epi32(sum, u, s); }

// Weights of eight bits, 128 added. Dot() takes them with kAdded added.
struct WeightBytes {
  static constexpr float kAdded = 128;
  I bytes[8];
  void Set(int j, I v) { bytes[j] = v; }
  I Dot(I sum, int j, I s) const { return DotNibbles(sum, bytes[j], s); }
};

inline I MagnitudeBits(F a) { return _mm512_castps_si512(Abs(a)); }
inline I LargerWords(I a, I b) { return _mm512_max_epu32(a, b); }
inline I AddWords(I a, I b) { return _mm512_add_epi32(a, b); }
// Lane i: all lanes of v[i].
template <class Combine>
inline I Folded(const I (&v)[16], Combine combine) {
  I pairs[8], fours[4];
  for (int i = 0; i < 8; ++i) {
    const I a = v[2 * i], b = v[2 * i + 1];
    pairs[i] = combine(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  }
  for (int i = 0; i < 4; ++i) {
    const I a = pairs[2 * i], b = pairs[2 * i + 1];
    fours[i] = combine(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  }
  const auto halves = [combine](I a, I b) {
    return combine(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
  };
  const I low = halves(fours[0], fours[1]), high = halves(fours[2], fours[3]);
  return combine(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xdd));
}

// WriteColumns by a 16 x 16 transposition, where there are enough tokens to make it pay.
inline bool Transposed(const void* rows, int64_t stride, int tokens, uint32_t* out,
                       int64_t out_stride) {
  if (tokens < 4) return false;
  const float* source = static_cast<const float*>(rows);
  F r[16], s[16];
  for (int t = 0; t < 16; ++t) r[t] = t < tokens ? Load(source + t * stride) : Zero();
  for (int i = 0; i < 16; i += 2) {  // pairs of rows: columns 0, 1 and 2, 3 of each quarter
    s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {  // four rows: one column of each quarter
    const __m512d p0 = _mm512_castps_pd(s[i]), p1 = _mm512_castps_pd(s[i + 1]);
    const __m512d p2 = _mm512_castps_pd(s[i + 2]), p3 = _mm512_castps_pd(s[i + 3]);
    r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(p0, p2));
    r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p0, p2));
    r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(p1, p3));
    r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(p1, p3));
  }
  for (int i = 0; i < 4; ++i) {  // quarters 0, 2 and 1, 3 of eight rows
    s[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
    s[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    s[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
    s[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
  }
  F columns[16];
  for (int i = 0; i < 8; ++i) {
    columns[i] = _mm512_shuffle_f32x4(s[i], s[i + 8], 0x88);
    columns[i + 8] = _mm512_shuffle_f32x4(s[i], s[i + 8], 0xdd);
  }
  for (int i = 0; i < 16; ++i) {
    StorePart(reinterpret_cast<float*>(out) + i * out_stride, tokens, columns[i]);
  }
  return true;
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
