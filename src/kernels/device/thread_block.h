#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device/numbers.h"

namespace lmfusion {

// Note [One kernel body, two executors]
// The body of a kernel is a template over the thread block that runs it. A body is written as
// steps: ForEach runs a step for every thread of the thread block with that thread's own State (its
// registers), Sync is the barrier between steps that exchange data through shared memory, and what
// the threads of a warp do together (matrix products, exchanges of registers) is a step of its
// own. DeviceThreads are one thread block of a CUDA grid; SerialThreads run the same steps thread
// by thread on the host, where tests compare them with plain formulas. So the index arithmetic of
// every kernel is tested on machines without a GPU; only the instructions behind the steps are not.
//
// The registers of matrix products are those of PTX's mma.m16n8k16 (row by column): of the 32
// threads, thread l holds of A [16][16] the pairs at (row l/4, column 2(l%4)), (row + 8, column),
// (row, column + 8), (row + 8, column + 8); of B [16][8] the pairs at (row 2(l%4), column l/4) and
// (row + 8, column), pairs along the rows; of C [16][8] the pairs at (row l/4, column 2(l%4)) and
// (row + 8, column).

template <typename T>
LMFUSION_HOST_DEVICE uint32_t PackPair(float low, float high) {
  return static_cast<uint32_t>(Convert<T>::From(low).bits) |
         static_cast<uint32_t>(Convert<T>::From(high).bits) << 16;
}

template <typename State, int kThreads>
class SerialThreads {
 public:
  SerialThreads() : states_(kThreads) {}

  template <typename Step>
  void ForEach(Step step) {
    for (int thread = 0; thread < kThreads; ++thread) step(thread, states_[thread]);
  }
  void Sync() {}

  // c += a b for every warp. The accessors give a thread's registers: a [4], b [2], c [4].
  template <typename T, typename A, typename B, typename C>
  void MultiplyAdd(A a, B b, C c) {
    for (int warp = 0; warp < kThreads / 32; ++warp) {
      float left[16][16], right[16][8];
      for (int lane = 0; lane < 32; ++lane) {
        State& state = states_[warp * 32 + lane];
        for (int i = 0; i < 4; ++i) {
          const int row = lane / 4 + (i % 2) * 8, column = lane % 4 * 2 + (i / 2) * 8;
          Unpack<T>(a(state)[i], &left[row][column], &left[row][column + 1]);
        }
        for (int i = 0; i < 2; ++i) {
          const int row = lane % 4 * 2 + i * 8;
          Unpack<T>(b(state)[i], &right[row][lane / 4], &right[row + 1][lane / 4]);
        }
      }
      for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 4; ++i) {
          const int row = lane / 4 + (i / 2) * 8, column = lane % 4 * 2 + i % 2;
          float sum = 0;
          for (int k = 0; k < 16; ++k) sum += left[row][k] * right[k][column];
          c(states_[warp * 32 + lane])[i] += sum;
        }
      }
    }
  }

  // Registers of B for two 8x8 tiles of a row-major matrix, PTX's ldmatrix.x2.trans. row(thread)
  // points to row thread % 16 of the two tiles, in shared memory.
  template <typename Row, typename B>
  void LoadTransposed(Row row, B b) {
    for (int warp = 0; warp < kThreads / 32; ++warp) {
      for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 2; ++i) {
          const uint16_t* low = row(warp * 32 + i * 8 + lane % 4 * 2);
          const uint16_t* high = row(warp * 32 + i * 8 + lane % 4 * 2 + 1);
          b(states_[warp * 32 + lane])[i] =
              static_cast<uint32_t>(low[lane / 4]) | static_cast<uint32_t>(high[lane / 4]) << 16;
        }
      }
    }
  }

  // The four threads that hold one row of C agree on the combination of their values, two each.
  template <typename Value, typename Combine>
  void QuadReduce(Value value, Combine combine) {
    for (int first = 0; first < kThreads; first += 4) {
      for (int i = 0; i < 2; ++i) {
        float all = value(states_[first])[i];
        for (int j = 1; j < 4; ++j) all = combine(all, value(states_[first + j])[i]);
        for (int j = 0; j < 4; ++j) value(states_[first + j])[i] = all;
      }
    }
  }

 private:
  template <typename T>
  static void Unpack(uint32_t pair, float* low, float* high) {
    *low = ToFloat(T{static_cast<uint16_t>(pair & 0xffff)});
    *high = ToFloat(T{static_cast<uint16_t>(pair >> 16)});
  }

  std::vector<State> states_;
};

#if defined(__CUDACC__)

template <typename State>
class DeviceThreads {
 public:
  template <typename Step>
  __device__ __forceinline__ void ForEach(Step step) {
    step(static_cast<int>(threadIdx.x), state_);
  }
  __device__ __forceinline__ void Sync() { __syncthreads(); }

  template <typename T, typename A, typename B, typename C>
  __device__ __forceinline__ void MultiplyAdd(A a, B b, C c) {
    Instruction(T{}, a(state_), b(state_), c(state_));
  }

  template <typename Row, typename B>
  __device__ __forceinline__ void LoadTransposed(Row row, B b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
    const auto address =
        static_cast<uint32_t>(__cvta_generic_to_shared(row(static_cast<int>(threadIdx.x))));
    uint32_t* registers = b(state_);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
#endif
  }

  template <typename Value, typename Combine>
  __device__ __forceinline__ void QuadReduce(Value value, Combine combine) {
    float* values = value(state_);
    LMFUSION_UNROLL
    for (int i = 0; i < 2; ++i) {
      values[i] = combine(values[i], __shfl_xor_sync(0xffffffffu, values[i], 1));
      values[i] = combine(values[i], __shfl_xor_sync(0xffffffffu, values[i], 2));
    }
  }

 private:
  // Compute capability 8.0; the launcher sends older devices to another kernel.
  static __device__ __forceinline__ void Instruction(BFloat16, const uint32_t* a, const uint32_t* b,
                                                     float* c) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
  }
  static __device__ __forceinline__ void Instruction(Float16, const uint32_t* a, const uint32_t* b,
                                                     float* c) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
  }

  State state_;
};

#endif  // __CUDACC__

}  // namespace lmfusion
