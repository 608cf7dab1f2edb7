#pragma once

// Code that nvcc compiles for the device and every compiler for the host.
#if defined(__CUDACC__)
#define LMFUSION_HOST_DEVICE __host__ __device__ __forceinline__
#define LMFUSION_UNROLL _Pragma("unroll")
#else
#define LMFUSION_HOST_DEVICE inline
#define LMFUSION_UNROLL
#endif

// Beside `inline`: no copy of its own in any object file, see Note [Lanes].
#if defined(__GNUC__) && !defined(__CUDACC__)
#define LMFUSION_ALWAYS_INLINE __attribute__((always_inline))
#else
#define LMFUSION_ALWAYS_INLINE
#endif
