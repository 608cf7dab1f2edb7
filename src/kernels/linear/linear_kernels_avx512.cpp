#include "kernels/linear/linear_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

// Everything from here on may use AVX-512; it runs only where the CPU has it.
#if defined(__clang__)
#pragma clang attribute push(                                                               \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
#endif

namespace lmfusion {
namespace {

#include "kernels/simd/lanes_avx512.h"

#include "kernels/linear/linear_kernel_loops.h"

#include "kernels/linear/activation_loops.h"
#include "kernels/linear/int8_kernel_loops.h"
#include "kernels/output/logit_sum_loops.h"

}  // namespace

const LinearKernels& Avx512LinearKernels() {
  static const LinearKernels kernels = [] {
    LinearKernels all{};
    AddFloat32Kernels(&all);
    AddInt8Kernels(&all);
    AddActivations(&all);
    AddLogitSums(&all);
    if (__builtin_cpu_supports("avx512bf16")) AddBFloat16Kernels(&all);
    return all;
  }();
  return kernels;
}

}  // namespace lmfusion
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
