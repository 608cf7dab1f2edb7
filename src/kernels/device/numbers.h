#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#endif

#include "kernels/device/host_device.h"

namespace lmfusion {

// The number types of activations and of the pool of keys and values, as the kernels name them:
// nvcc does not read torch's headers here.
enum class NumberType { kFloat32, kFloat16, kBFloat16, kFloat8 };

LMFUSION_HOST_DEVICE int Bytes(NumberType type) {
  return type == NumberType::kFloat32 ? 4 : type == NumberType::kFloat8 ? 1 : 2;
}

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
struct Float8 {  // e4m3, finite numbers and NaN
  uint8_t bits;
};

LMFUSION_ALWAYS_INLINE LMFUSION_HOST_DEVICE uint32_t FloatBits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
#endif
}

LMFUSION_ALWAYS_INLINE LMFUSION_HOST_DEVICE float FloatOf(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
#endif
}

// A number of 1 + exponent + mantissa bits, for the host; the device has instructions for it.
template <int kExponent, int kMantissa>
LMFUSION_HOST_DEVICE float Widen(uint32_t bits) {
  constexpr int kBias = (1 << (kExponent - 1)) - 1;
  const uint32_t sign = (bits >> (kExponent + kMantissa)) & 1;
  const uint32_t exponent = (bits >> kMantissa) & ((1u << kExponent) - 1);
  const uint32_t mantissa = bits & ((1u << kMantissa) - 1);
  if (exponent == 0) {  // subnormal: mantissa * 2^(1 - bias - kMantissa), exact in float32
    const float unit = FloatOf(static_cast<uint32_t>(127 + 1 - kBias - kMantissa) << 23);
    const float value = static_cast<float>(mantissa) * unit;
    return sign ? -value : value;
  }
  return FloatOf(sign << 31 | (exponent - kBias + 127) << 23 | mantissa << (23 - kMantissa));
}

// Rounds the magnitude of a finite float32 to the nearest such number, ties to even. The caller
// has seen to what is too large.
template <int kExponent, int kMantissa>
LMFUSION_HOST_DEVICE uint32_t Narrow(uint32_t magnitude) {
  constexpr int kBias = (1 << (kExponent - 1)) - 1;
  const int exponent = static_cast<int>(magnitude >> 23) - 127 + kBias;
  int shift = 23 - kMantissa;
  uint32_t mantissa = magnitude & 0x7fffffu;
  if (exponent <= 0) {  // subnormal
    if (exponent < -kMantissa) return 0;
    mantissa |= 0x800000u;
    shift += 1 - exponent;
  } else {
    mantissa |= static_cast<uint32_t>(exponent) << 23;
  }
  const uint32_t half = 1u << (shift - 1);
  const uint32_t rest = mantissa & ((1u << shift) - 1);
  const uint32_t whole = mantissa >> shift;
  return whole + (rest > half || (rest == half && (whole & 1)) ? 1 : 0);
}

LMFUSION_HOST_DEVICE float ToFloat(float x) { return x; }
LMFUSION_HOST_DEVICE float ToFloat(BFloat16 x) {
  return FloatOf(static_cast<uint32_t>(x.bits) << 16);
}
LMFUSION_HOST_DEVICE float ToFloat(Float16 x) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(x.bits));
#else
  if ((x.bits & 0x7c00) == 0x7c00) {
    return FloatOf((x.bits & 0x8000u) << 16 | 0x7f800000u | (x.bits & 0x3ffu) << 13);
  }
  return Widen<5, 10>(x.bits);
#endif
}
LMFUSION_HOST_DEVICE float ToFloat(Float8 x) {
#if defined(__CUDA_ARCH__)
  const __half_raw raw = __nv_cvt_fp8_to_halfraw(x.bits, __NV_E4M3);
  return __half2float(__half(raw));
#else
  if ((x.bits & 0x7f) == 0x7f) return FloatOf(0x7fc00000u);
  return Widen<4, 3>(x.bits);
#endif
}

template <typename T>
struct Convert;
template <>
struct Convert<float> {
  static LMFUSION_HOST_DEVICE float From(float x) { return x; }
};
template <>
struct Convert<BFloat16> {
  static LMFUSION_HOST_DEVICE BFloat16 From(float x) {
    const uint32_t bits = FloatBits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};
  }
};
template <>
struct Convert<Float16> {
  static LMFUSION_HOST_DEVICE Float16 From(float x) {
#if defined(__CUDA_ARCH__)
    return {__half_as_ushort(__float2half_rn(x))};
#else
    const uint32_t bits = FloatBits(x), magnitude = bits & 0x7fffffffu, sign = bits >> 31 << 15;
    if (magnitude > 0x7f800000u) return {0x7fff};
    if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // 65520
    return {static_cast<uint16_t>(sign | Narrow<5, 10>(magnitude))};
#endif
  }
};
template <>
struct Convert<Float8> {
  // What is beyond the largest number, 448, becomes it.
  static LMFUSION_HOST_DEVICE Float8 From(float x) {
#if defined(__CUDA_ARCH__)
    return {static_cast<uint8_t>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3))};
#else
    const uint32_t bits = FloatBits(x), magnitude = bits & 0x7fffffffu, sign = bits >> 31 << 7;
    if (magnitude > 0x7f800000u) return {0x7f};
    if (magnitude >= 0x43e00000u) return {static_cast<uint8_t>(sign | 0x7eu)};  // 448
    return {static_cast<uint8_t>(sign | Narrow<4, 3>(magnitude))};
#endif
  }
};

// Element `index` of an array whose type is known at run time only.
LMFUSION_HOST_DEVICE float LoadNumber(const void* array, NumberType type, int64_t index) {
  switch (type) {
    case NumberType::kFloat32: return static_cast<const float*>(array)[index];
    case NumberType::kFloat16: return ToFloat(static_cast<const Float16*>(array)[index]);
    case NumberType::kBFloat16: return ToFloat(static_cast<const BFloat16*>(array)[index]);
    case NumberType::kFloat8: return ToFloat(static_cast<const Float8*>(array)[index]);
  }
  return 0;
}

LMFUSION_HOST_DEVICE void StoreNumber(void* array, NumberType type, int64_t index, float value) {
  switch (type) {
    case NumberType::kFloat32: static_cast<float*>(array)[index] = value; break;
    case NumberType::kFloat16:
      static_cast<Float16*>(array)[index] = Convert<Float16>::From(value);
      break;
    case NumberType::kBFloat16:
      static_cast<BFloat16*>(array)[index] = Convert<BFloat16>::From(value);
      break;
    case NumberType::kFloat8:
      static_cast<Float8*>(array)[index] = Convert<Float8>::From(value);
      break;
  }
}

}  // namespace lmfusion
