#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "kernels/threads/parallel.h"

namespace lmfusion {

// Refuses what is not float32 on the CPU with a dimension at least.
void CheckFloat(const char* name, const at::Tensor& x);

// Refuses what a matrix of `in` columns is not multiplied with.
void CheckActivations(const char* name, const at::Tensor& x, int64_t in);

// The rows of a tensor, its leading dimensions joined: without a copy where rows are evenly spaced,
// and without a view where nothing lies between.
struct FloatRows {
  explicit FloatRows(const at::Tensor& x);

  at::Tensor memory;
  int64_t width, stride, count;
  const float* data;
};

// Row i of `rows` becomes row numbers[i] of `to`, both float32 on the CPU and as wide; numbers
// int32. Returns whether all that was written is finite.
bool StoreRows(const at::Tensor& rows, const at::Tensor& numbers, const at::Tensor& to);

// Calls body(begin, end) for ranges of `count` rows of this width, on many threads.
template <class Body>
void ForRows(int64_t count, int64_t width, Body body) {
  constexpr int64_t kGrainElements = 1 << 15;
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, width));
  ParallelFor(0, count, grain, body);
}

}  // namespace lmfusion
