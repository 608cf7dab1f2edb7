#pragma once

#include <immintrin.h>

#include <cstdint>

// Sixteen lanes in two AVX2 registers; see Note [Lanes].
namespace lmfusion {
namespace LMFUSION_SIMD {

struct F {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};

constexpr int kMaxTokens = 6;
constexpr int kPanelsOfTokens = 1;
constexpr int kMaxInt8Tokens = 12, kTokensInTurn = 1;

inline F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F Splat(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }
inline F Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F LoadPart(const float* p, int64_t n) {
  float lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return Load(lanes);
}
inline F LoadHalf(const void* p) {
  const __m128i* half = static_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(half)), _mm256_cvtph_ps(_mm_loadu_si128(half + 1))};
}
inline void Store(float* p, F v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
inline void StorePart(float* p, int64_t n, F v) {
  float lanes[16];
  Store(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
#define LMFUSION_LANEWISE(name, intrinsic) \
  inline F name(F x, F y) { return {intrinsic(x.a, y.a), intrinsic(x.b, y.b)}; }
LMFUSION_LANEWISE(Add, _mm256_add_ps)
LMFUSION_LANEWISE(Sub, _mm256_sub_ps)
LMFUSION_LANEWISE(Mul, _mm256_mul_ps)
LMFUSION_LANEWISE(Div, _mm256_div_ps)
LMFUSION_LANEWISE(Max, _mm256_max_ps)
LMFUSION_LANEWISE(Min, _mm256_min_ps)
#undef LMFUSION_LANEWISE
inline F MulAdd(F x, F y, F z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline F Abs(F x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline F Round(F x) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, kNearest), _mm256_round_ps(x.b, kNearest)};
}
// Of eight lanes, by halves.
template <class Combine>
inline float Reduced(__m256 x, Combine combine) {
  __m128 four = combine(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  four = combine(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(combine(four, _mm_movehdup_ps(four)));
}
inline float SumOf(F x) {
  return Reduced(_mm256_add_ps(x.a, x.b), [](__m128 a, __m128 b) { return _mm_add_ps(a, b); });
}
inline float LargestOf(F x) {
  return Reduced(_mm256_max_ps(x.a, x.b), [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
}
// Lanes 1, 0, 3, 2, ...
inline F SwapPairs(F x) { return {_mm256_permute_ps(x.a, 0xb1), _mm256_permute_ps(x.b, 0xb1)}; }
inline F KeepMembers(F v, const uint8_t* members, F other) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(members));
  const __m256i zero = _mm256_setzero_si256();
  const __m256i none_a = _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(bytes), zero);
  const __m256i none_b = _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)), zero);
  return {_mm256_blendv_ps(v.a, other.a, _mm256_castsi256_ps(none_a)),
          _mm256_blendv_ps(v.b, other.b, _mm256_castsi256_ps(none_b))};
}

inline I LoadWords(const void* p) {
  const __m256i* words = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
}
inline void StoreWords(void* p, I v) {
  __m256i* words = static_cast<__m256i*>(p);
  _mm256_storeu_si256(words, v.a);
  _mm256_storeu_si256(words + 1, v.b);
}
inline I SplatWord(uint32_t v) {
  const __m256i words = _mm256_set1_epi32(static_cast<int>(v));
  return {words, words};
}
inline F AsFloat(I v) { return {_mm256_castsi256_ps(v.a), _mm256_castsi256_ps(v.b)}; }
inline F ToFloat(I v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
inline I ToInt(F v) { return {_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b)}; }
inline __m256i And(__m256i v, int mask) { return _mm256_and_si256(v, _mm256_set1_epi32(mask)); }
inline F PowerOfTwo(F n) {
  const __m256i bias = _mm256_set1_epi32(127);
  const I i = ToInt(n);
  return AsFloat({_mm256_slli_epi32(_mm256_add_epi32(i.a, bias), 23),
                  _mm256_slli_epi32(_mm256_add_epi32(i.b, bias), 23)});
}
inline void StoreBytes(void* p, I v) {
  const __m256i halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xd8);
  const __m128i bytes =
      _mm_packs_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
  _mm_storeu_si128(static_cast<__m128i*>(p), bytes);
}

inline F LowHalf(I v) { return AsFloat({_mm256_slli_epi32(v.a, 16), _mm256_slli_epi32(v.b, 16)}); }
inline F HighHalf(I v) { return AsFloat({And(v.a, 0xffff0000), And(v.b, 0xffff0000)}); }
template <int kShift>
inline F Nibble(I v) {
  return ToFloat(
      {And(_mm256_srli_epi32(v.a, kShift), 15), And(_mm256_srli_epi32(v.b, kShift), 15)});
}
template <int kByte>
inline F Byte(I v) {
  return ToFloat(
      {And(_mm256_srli_epi32(v.a, 8 * kByte), 255), And(_mm256_srli_epi32(v.b, 8 * kByte), 255)});
}
inline I LowNibbles(I v) { return {And(v.a, 0x0f0f0f0f), And(v.b, 0x0f0f0f0f)}; }
inline I HighNibbles(I v) {
  return LowNibbles({_mm256_srli_epi32(v.a, 4), _mm256_srli_epi32(v.b, 4)});
}
// sum + u . s of each word: four products of unsigned and signed bytes.
#if defined(__AVXVNNI__)
inline I DotNibbles(I sum, I u, I s) {
  return {_mm256_dpbusd_avx_epi32(sum.a, u.a, s.a), _mm256_dpbusd_avx_epi32(sum.b, u.b, s.b)};
}
#else
// Through 16 bits, which hold the sum of two products where one factor has four bits, or neither
// is beyond 127.
inline __m256i DotThrough16(__m256i sum, __m256i u, __m256i s) {
  const __m256i pairs = _mm256_maddubs_epi16(u, s);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline I DotNibbles(I sum, I u, I s) {
  return {DotThrough16(sum.a, u.a, s.a), DotThrough16(sum.b, u.b, s.b)};
}
#endif

// Weights of eight bits, 128 added: -127 to 127 without. Dot() takes them with kAdded added.
#if defined(__AVXVNNI__)
struct WeightBytes {
  static constexpr float kAdded = 128;
  I bytes[8];
  void Set(int j, I v) { bytes[j] = v; }
  I Dot(I sum, int j, I s) const { return DotNibbles(sum, bytes[j], s); }
};
#else
// Magnitudes, and signs that go over to the other factor.
struct WeightBytes {
  static constexpr float kAdded = 0;
  I magnitudes[8], weights[8];
  void Set(int j, I v) {
    const __m256i added = _mm256_set1_epi8(-128);
    weights[j] = {_mm256_xor_si256(v.a, added), _mm256_xor_si256(v.b, added)};
    magnitudes[j] = {_mm256_abs_epi8(weights[j].a), _mm256_abs_epi8(weights[j].b)};
  }
  I Dot(I sum, int j, I s) const {
    return DotNibbles(sum, magnitudes[j],
                      {_mm256_sign_epi8(s.a, weights[j].a), _mm256_sign_epi8(s.b, weights[j].b)});
  }
};
#endif

#if !defined(__AVXVNNI__)
// What byte_stretches.h needs: products of bytes in fewer instructions than DotNibbles takes.
#define LMFUSION_BYTE_STRETCHES
constexpr int kLeastTokensOfNibbles = 6, kLeastTokensOfBytes = 13;

// In place: left free, GCC 12 puts the additions of many tokens off until sums and products
// together do not fit into the registers.
#define LMFUSION_IN_PLACE(add, sum, products) asm(add " %1, %0, %0" : "+x"(sum) : "x"(products))

// Pairs: numbers of 16 bits, two of the bytes of each word, and sums of two products a word.
inline __m256i OddBytes(__m256i v) { return _mm256_srai_epi16(v, 8); }
inline I OddBytes(I v) { return {OddBytes(v.a), OddBytes(v.b)}; }
inline I EvenBytes(I v) {
  return {OddBytes(_mm256_slli_epi16(v.a, 8)), OddBytes(_mm256_slli_epi16(v.b, 8))};
}
inline I MulPairs(I x, I y) { return {_mm256_madd_epi16(x.a, y.a), _mm256_madd_epi16(x.b, y.b)}; }
inline void AddPairs(I x, I y, I& sum) {
  const I products = MulPairs(x, y);
  LMFUSION_IN_PLACE("vpaddd", sum.a, products.a);
  LMFUSION_IN_PLACE("vpaddd", sum.b, products.b);
}
// Weights of eight bits that have 128 added, without it.
inline I WithoutExcess(I v) {
  const __m256i added = _mm256_set1_epi8(-128);
  return {_mm256_xor_si256(v.a, added), _mm256_xor_si256(v.b, added)};
}

// Bytes u of four bits and signed bytes s: 16 bits hold the sum of sixteen products, 16 * 15 * 127.
inline I MulNibbles(I u, I s) {
  return {_mm256_maddubs_epi16(u.a, s.a), _mm256_maddubs_epi16(u.b, s.b)};
}
inline void AddNibbles(I u, I s, I& sum) {
  const I products = MulNibbles(u, s);
  LMFUSION_IN_PLACE("vpaddw", sum.a, products.a);
  LMFUSION_IN_PLACE("vpaddw", sum.b, products.b);
}
inline I SumOfHalves(I sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  return {_mm256_madd_epi16(sums.a, ones), _mm256_madd_epi16(sums.b, ones)};
}
#undef LMFUSION_IN_PLACE
#endif

inline I MagnitudeBits(F v) {
  const F a = Abs(v);
  return {_mm256_castps_si256(a.a), _mm256_castps_si256(a.b)};
}
inline __m256i LargerWords(__m256i a, __m256i b) { return _mm256_max_epu32(a, b); }
inline I LargerWords(I a, I b) { return {LargerWords(a.a, b.a), LargerWords(a.b, b.b)}; }
inline __m256i AddWords(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
inline I AddWords(I a, I b) { return {AddWords(a.a, b.a), AddWords(a.b, b.b)}; }
// Lane i: all lanes of v[i].
template <class Combine>
inline __m256i FoldedHalf(const I* v, Combine combine) {
  __m256i pairs[4];
  for (int i = 0; i < 4; ++i) {
    const __m256i a = combine(v[2 * i].a, v[2 * i].b), b = combine(v[2 * i + 1].a, v[2 * i + 1].b);
    pairs[i] = combine(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
  }
  const auto fours = [combine](__m256i a, __m256i b) {
    return combine(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
  };
  const __m256i low = fours(pairs[0], pairs[1]), high = fours(pairs[2], pairs[3]);
  return combine(_mm256_permute2x128_si256(low, high, 0x20),
                 _mm256_permute2x128_si256(low, high, 0x31));
}
template <class Combine>
inline I Folded(const I (&v)[16], Combine combine) {
  return {FoldedHalf(v, combine), FoldedHalf(v + 8, combine)};
}

// Columns [0, 8) of up to eight rows.
inline void Transpose8(const float* rows, int64_t stride, int tokens, float* out,
                       int64_t out_stride) {
  __m256 r[8], s[8];
#pragma GCC unroll 8
  for (int t = 0; t < 8; ++t) {
    r[t] = t < tokens ? _mm256_loadu_ps(rows + t * stride) : _mm256_setzero_ps();
  }
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {  // pairs of rows: columns 0, 1 and 2, 3 of each half
    s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {  // four rows: one column of each half
    r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
  }
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i written = _mm256_cmpgt_epi32(_mm256_set1_epi32(tokens), lanes);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    s[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    s[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    _mm256_maskstore_ps(out + i * out_stride, written, s[i]);
  }
}

// WriteColumns by transpositions, where there are enough tokens to make them pay.
inline bool Transposed(const void* rows, int64_t stride, int tokens, uint32_t* out,
                       int64_t out_stride) {
  if (tokens < 3) return false;
  for (int t = 0; t < tokens; t += 8) {
    for (int i = 0; i < 16; i += 8) {
      Transpose8(static_cast<const float*>(rows) + t * stride + i, stride,
                 static_cast<int>(tokens - t < 8 ? tokens - t : 8),
                 reinterpret_cast<float*>(out) + i * out_stride + t, out_stride);
    }
  }
  return true;
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
