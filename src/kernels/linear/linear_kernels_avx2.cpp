#include "kernels/linear/linear_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

// Everything from here on may use AVX2; it runs only where the CPU has it.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace lmfusion {
namespace {

#include "kernels/simd/lanes_avx2.h"

#include "kernels/linear/linear_kernel_loops.h"

#include "kernels/linear/activation_loops.h"
#include "kernels/linear/int8_kernel_loops.h"
#include "kernels/output/logit_sum_loops.h"

}  // namespace

const LinearKernels& Avx2LinearKernels() {
  static const LinearKernels kernels = [] {
    LinearKernels all{};
    AddFloat32Kernels(&all);
    AddInt8Kernels(&all);
    AddActivations(&all);
    AddLogitSums(&all);
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
