// Norms, rotations and gates of one row against the same formulas in float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "every_instruction_set.h"
#include "kernels/rows/rows.h"

namespace lmfusion {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
// With and without a rest behind whole vectors, and shorter than one.
const int64_t kSizes[] = {1, 2, 7, 16, 30, 48, 577};

std::vector<float> Random(int64_t n, float scale, float shift = 0) {
  static std::mt19937 random(3);
  std::normal_distribution<float> normal(shift, scale);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

class RowKernelsTest : public EveryInstructionSet {};
INSTANTIATE_TEST_SUITE_P(Every, RowKernelsTest, InstructionSets(), NameOfSet);

TEST_P(RowKernelsTest, NormsAreThoseOfTheirFormula) {
  for (const int64_t n : kSizes) {
    const std::vector<float> x = Random(n, 3, 2), weight = Random(n, 1, 1), bias = Random(n, 1);
    for (const bool centered : {false, true}) {
      for (const bool whole : {false, true}) {
        RowNorm norm;
        norm.epsilon = 1e-5f;
        norm.centered = centered;
        if (whole) {
          norm.weight = weight.data();
          norm.bias = bias.data();
        }
        std::vector<float> y(n + 1, 7);
        CurrentRowKernels().normalize(x.data(), norm, n, y.data());
        double mean = 0, square = 0;
        for (const float value : x) mean += centered ? value / static_cast<double>(n) : 0;
        for (const float value : x) square += (value - mean) * (value - mean) / n;
        for (int64_t i = 0; i < n; ++i) {
          double wanted = (x[i] - mean) / std::sqrt(square + 1e-5);
          if (whole) wanted = wanted * weight[i] + bias[i];
          // One value has no variance: what is left of its mean is divided by sqrt(epsilon).
          EXPECT_NEAR(y[i], wanted, n == 1 && centered ? 1e-3 : 1e-5) << n << " " << i;
        }
        EXPECT_EQ(y[n], 7) << "nothing behind the row is written";
      }
    }
  }
}

TEST_P(RowKernelsTest, RotationsTurnHalvesOrPairs) {
  for (const int64_t n : {2, 8, 32, 34, 64, 100}) {
    const int64_t dim = n + 5;
    const std::vector<float> x = Random(dim, 2), cos = Random(n, 1), sin = Random(n, 1);
    for (const bool interleaved : {false, true}) {
      std::vector<float> y(dim + 1, 7);
      CurrentRowKernels().rotate(x.data(), {cos.data(), sin.data(), n, interleaved}, dim, y.data());
      for (int64_t i = 0; i < n; ++i) {
        const bool first = interleaved ? i % 2 == 0 : i < n / 2;
        const int64_t step = interleaved ? 1 : n / 2;
        const double partner = first ? -x[i + step] : x[i - step];
        EXPECT_NEAR(y[i], double{x[i]} * cos[i] + partner * sin[i], 1e-5) << n << " " << i;
      }
      for (int64_t i = n; i < dim; ++i) EXPECT_EQ(y[i], x[i]);
      EXPECT_EQ(y[dim], 7);
    }
  }
}

double Silu(double x) { return x / (1 + std::exp(-x)); }
double Gelu(double x) { return x / 2 * std::erfc(-x / std::sqrt(2)); }
double GeluTanh(double x) {
  return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
double Relu(double x) { return std::max(x, 0.0); }
constexpr double (*kFormulas[])(double) = {&Silu, &Gelu, &GeluTanh, &Relu};
double ClampedSilu(double gate, double up) {
  const double z = std::min(gate, 7.0);
  return z / (1 + std::exp(-1.702 * z)) * (std::clamp(up, -7.0, 7.0) + 1);
}

TEST_P(RowKernelsTest, GatesAreThoseOfTheirFormulas) {
  const RowKernels& kernels = CurrentRowKernels();
  constexpr auto kClamped = static_cast<int>(Activation::kClampedSilu);
  for (const int64_t n : kSizes) {
    std::vector<float> gate = Random(n, 4);
    const std::vector<float> up = Random(n, 4);
    gate[0] = -300;  // far beyond where exp has a value
    gate[n / 2] = 300;
    std::vector<float> y(n + 1, 7);
    for (int i = 0; i < kActivations; ++i) {
      kernels.gate[i]({gate.data(), n, up.data(), n, 1, n, y.data(), n});
      for (int64_t j = 0; j < n; ++j) {
        const double bound = 1e-6 * (1 + std::abs(gate[j])) * (1 + std::abs(up[j]));
        EXPECT_NEAR(y[j],
                    i == kClamped ? ClampedSilu(gate[j], up[j]) : kFormulas[i](gate[j]) * up[j],
                    bound)
            << i << " of " << gate[j];
      }
      if (i == kClamped) continue;
      kernels.gate[i]({gate.data(), n, nullptr, 0, 1, n, y.data(), n});
      for (int64_t j = 0; j < n; ++j) {
        EXPECT_NEAR(y[j], kFormulas[i](gate[j]), 1e-6 * (1 + std::abs(gate[j]))) << i;
      }
    }
    EXPECT_EQ(y[n], 7);
    std::vector<float> sum = up;
    kernels.add(gate.data(), n, sum.data());
    for (int64_t j = 0; j < n; ++j) EXPECT_EQ(sum[j], up[j] + gate[j]);
  }
}

// With -fsanitize=undefined this also shows that no NaN is turned into an integer.
TEST_P(RowKernelsTest, WhatIsNoNumberStaysNone) {
  const RowKernels& kernels = CurrentRowKernels();
  std::vector<float> gate(33, 1), y(33);
  gate[3] = gate[32] = kNan;
  gate[20] = kInfinity;
  const std::vector<float> up(33, 1);
  for (int k = 0; k < kActivations; ++k) {
    kernels.gate[k]({gate.data(), 33, up.data(), 33, 1, 33, y.data(), 33});
    for (int64_t i = 0; i < 33; ++i) EXPECT_EQ(std::isnan(y[i]), i == 3 || i == 32) << i;
    EXPECT_TRUE(y[20] == kInfinity || k == static_cast<int>(Activation::kClampedSilu)) << k;
  }
}

}  // namespace
}  // namespace lmfusion
