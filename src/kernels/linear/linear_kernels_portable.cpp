#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/linear/linear_kernels.h"
#include "kernels/simd/instruction_set.h"

namespace lmfusion {
namespace {

#include "kernels/simd/lanes_portable.h"

#include "kernels/linear/linear_kernel_loops.h"

#include "kernels/linear/activation_loops.h"
#include "kernels/output/logit_sum_loops.h"

}  // namespace

const LinearKernels& PortableLinearKernels() {
  // No products of bytes: those of floats are faster here.
  static const LinearKernels kernels = [] {
    LinearKernels all{};
    AddFloat32Kernels(&all);
    AddActivations(&all);
    AddLogitSums(&all);
    return all;
  }();
  return kernels;
}

const LinearKernels& CurrentLinearKernels() {
#if defined(__x86_64__) && defined(__GNUC__)
  switch (CurrentInstructionSet()) {
    case InstructionSet::kAvx512: return Avx512LinearKernels();
    case InstructionSet::kAvx2: return Avx2LinearKernels();
    case InstructionSet::kPortable: break;
  }
#endif
  return PortableLinearKernels();
}

}  // namespace lmfusion
