#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/linear/compute.h"
#include "kernels/linear/weight_matrix.h"

// Matrices for the tests of products.
namespace lmfusion {

using Floats = std::vector<float>;

// What a CPU computes in.
constexpr Compute kCpuComputes[] = {Compute::kFloat32, Compute::kBFloat16, Compute::kInt8,
                                    Compute::kInt4};

inline Floats Normal(int64_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Floats values(size);
  for (float& value : values) value = normal(random);
  return values;
}

// For products of about the size of what they are multiplied with.
inline Floats Scaled(Floats weights, int64_t inputs) {
  for (float& weight : weights) weight /= std::sqrt(static_cast<float>(inputs));
  return weights;
}

// Row by row; `weights` must outlive it.
inline WeightMatrix MatrixOf(const Floats& weights, int64_t out, int64_t in) {
  WeightMatrix matrix;
  matrix.data = weights.data();
  matrix.out = out;
  matrix.in = in;
  matrix.stride = sizeof(float);
  matrix.row_stride = in * matrix.stride;
  return matrix;
}

}  // namespace lmfusion
