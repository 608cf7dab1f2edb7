#include "kernels/linear/linear_kernels.h"

#include "kernels/linear/activation_loops.h"
#include "kernels/linear/float32_loops.h"
#include "kernels/linear/stretch_loops.h"
#if !defined(LMFUSION_SIMD_PORTABLE)
#include "kernels/linear/int8_loops.h"
#endif
#if defined(LMFUSION_BYTE_STRETCHES)
#include "kernels/linear/byte_stretches.h"
#endif

namespace lmfusion {
namespace LMFUSION_SIMD {
namespace {

constexpr LinearKernels AllKernels() noexcept {
  LinearKernels kernels{};
  AddFloat32Kernels(&kernels);
  AddStretches(&kernels);
  AddActivations(&kernels);
#if !defined(LMFUSION_SIMD_PORTABLE)
  AddInt8Kernels(&kernels);  // elsewhere products of floats are faster
#endif
#if defined(LMFUSION_BYTE_STRETCHES)
  AddByteStretches(&kernels);
#endif
  return kernels;
}

}  // namespace

const LinearKernels kLinearKernels = AllKernels();

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
