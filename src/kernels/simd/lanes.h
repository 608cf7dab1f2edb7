#pragma once

// Note [Lanes]
// A kernel is written once, over vectors of sixteen lanes: F (floats) and I (32-bit words). The
// compiler reads it once an instruction set, with that set's flags and LMFUSION_SIMD, the name of a
// namespace: lmfusion_simd_kernels in src/CMakeLists.txt. The lanes of a set are one register of
// AVX-512, two of AVX2, four of NEON, or an array for the compiler's own vectors. Each kernel file
// defines a table of functions in lmfusion::LMFUSION_SIMD, and LMFUSION_KERNELS (instruction_set.h)
// declares the function that picks the table once an operator. All that a kernel file calls is in
// its own namespace or always inlined, never an inline function or a template of the standard
// library: a linker keeps one copy of those for the whole program, and it could be the one with
// instructions that this CPU does not have. tests/cpp/check_kernel_symbols.cmake holds the object
// files to that.

#include <cstdint>
#include <cstring>

#if defined(LMFUSION_SIMD_AVX512)
#include "kernels/simd/lanes_avx512.h"
#elif defined(LMFUSION_SIMD_AVX2)
#include "kernels/simd/lanes_avx2.h"
#elif defined(LMFUSION_SIMD_NEON)
#include "kernels/simd/lanes_neon.h"
#else
#include "kernels/simd/lanes_portable.h"
#endif

namespace lmfusion {
namespace LMFUSION_SIMD {

constexpr int64_t kLanes = 16;
constexpr float kInfinity = __builtin_inff();

constexpr int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t Larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Calls body(i, lanes) for the vectors of n numbers; the last may have fewer lanes than sixteen.
template <class Body>
inline void ForLanes(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
  if (i < n) body(i, n - i);
}
inline F LoadUpTo(const float* p, int64_t n) { return n == kLanes ? Load(p) : LoadPart(p, n); }
inline void StoreUpTo(float* p, int64_t n, F x) {
  if (n == kLanes) {
    Store(p, x);
  } else {
    StorePart(p, n, x);
  }
}

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
