// Feed-forward layers without torch: every instruction set against float64, and the same bits as
// their products and their gate one after the other.
#include "kernels/linear/feed_forward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "every_instruction_set.h"
#include "kernels/threads/parallel.h"
#include "random_matrices.h"

namespace lmfusion {
namespace {

class FeedForwardTest : public EveryInstructionSet {};
INSTANTIATE_TEST_SUITE_P(Every, FeedForwardTest, InstructionSets(), NameOfSet);

constexpr int64_t kRows[] = {1, 2, 3, 5, 12, 17, 33, 70};
constexpr int64_t kHidden = 37, kInner = 96, kOut = 41;  // `hidden` and `out` have rests
constexpr float kScale = 0.75f;

// A layer with biases, its matrices, and what stands around it.
struct Layer {
  explicit Layer(bool is_gated, int64_t inner_size = kInner)
      : gated(is_gated),
        inner(inner_size),
        first_rows((is_gated ? 2 : 1) * inner_size),
        first(Scaled(Normal(first_rows * kHidden, 1), kHidden)),
        last(Scaled(Normal(kOut * inner, 2), inner)),
        first_bias(Normal(first_rows, 3)),
        last_bias(Normal(kOut, 4)),
        weights(Normal(kHidden, 5)),
        norm{weights.data(), nullptr, 1e-5f, false} {}

  PackedWeight PackedFirst(Compute compute) const {
    return PackWeight({MatrixOf(first, first_rows, kHidden)}, first_bias.data(), compute);
  }
  PackedWeight PackedLast(Compute compute) const {
    return PackWeight({MatrixOf(last, kOut, inner)}, last_bias.data(), compute);
  }

  const bool gated;
  const int64_t inner, first_rows;
  const Floats first, last, first_bias, last_bias, weights;
  const RowNorm norm;
};

// Norm, product, gate and product, each whole.
Floats OneAfterTheOther(const Layer& layer, Activation activation, const PackedWeight& first,
                        const PackedWeight& last, const Floats& x, int64_t rows,
                        const Floats& residual) {
  const RowKernels& kernels = CurrentRowKernels();
  Floats normal(x.size()), products(rows * layer.first_rows), gated(rows * layer.inner);
  for (int64_t row = 0; row < rows; ++row) {
    kernels.normalize(x.data() + row * kHidden, layer.norm, kHidden, normal.data() + row * kHidden);
  }
  Multiply(first, normal.data(), rows, products.data());
  kernels.gate[static_cast<int>(activation)](
      {products.data(), layer.first_rows, layer.gated ? products.data() + layer.inner : nullptr,
       layer.first_rows, rows, layer.inner, gated.data(), layer.inner});
  Floats y(rows * kOut);
  Multiply(last, gated.data(), rows, y.data(), residual.data(), kScale);
  return y;
}

double Product(const Floats& weight, const Floats& bias, int64_t row,
               const std::vector<double>& x) {
  double sum = bias[row];
  for (size_t i = 0; i < x.size(); ++i) sum += double{weight[row * x.size() + i]} * x[i];
  return sum;
}

// A row of the layer with SiLU, in float64.
std::vector<double> Exact(const Layer& layer, const float* x, const float* residual) {
  double squares = 0;
  for (int64_t i = 0; i < kHidden; ++i) squares += double{x[i]} * x[i];
  const double scale = 1 / std::sqrt(squares / kHidden + double{layer.norm.epsilon});
  std::vector<double> normal(kHidden), activations(layer.inner), y(kOut);
  for (int64_t i = 0; i < kHidden; ++i) normal[i] = x[i] * scale * layer.weights[i];
  for (int64_t i = 0; i < layer.inner; ++i) {
    const double gate = Product(layer.first, layer.first_bias, i, normal);
    const double up =
        layer.gated ? Product(layer.first, layer.first_bias, layer.inner + i, normal) : 1;
    activations[i] = gate / (1 + std::exp(-gate)) * up;
  }
  for (int64_t i = 0; i < kOut; ++i) {
    y[i] = residual[i] + kScale * Product(layer.last, layer.last_bias, i, activations);
  }
  return y;
}

TEST_P(FeedForwardTest, IsExactInFloat32) {
  for (const bool gated : {false, true}) {
    const Layer layer(gated);
    const PackedWeight first = layer.PackedFirst(Compute::kFloat32);
    const PackedWeight last = layer.PackedLast(Compute::kFloat32);
    for (const int64_t rows : kRows) {
      const Floats x = Normal(rows * kHidden, 6), residual = Normal(rows * kOut, 7);
      Floats y(rows * kOut + 1, 7);
      FeedForward({first, last, Activation::kSilu, gated, &layer.norm}, x.data(), rows, y.data(),
                  residual.data(), kScale);
      for (int64_t row = 0; row < rows; ++row) {
        const std::vector<double> exact =
            Exact(layer, x.data() + row * kHidden, residual.data() + row * kOut);
        for (int64_t i = 0; i < kOut; ++i) EXPECT_NEAR(y[row * kOut + i], exact[i], 2e-5) << rows;
      }
      EXPECT_EQ(y.back(), 7);
    }
  }
}

TEST_P(FeedForwardTest, HasTheBitsOfItsParts) {
  for (const Compute compute : kCpuComputes) {
    for (const bool gated : {false, true}) {
      const Layer layer(gated);
      const PackedWeight first = layer.PackedFirst(compute), last = layer.PackedLast(compute);
      for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
        for (const int64_t rows : kRows) {
          const Floats x = Normal(rows * kHidden, 6), residual = Normal(rows * kOut, 7);
          Floats y(rows * kOut);
          FeedForward({first, last, activation, gated, &layer.norm}, x.data(), rows, y.data(),
                      residual.data(), kScale);
          EXPECT_EQ(y, OneAfterTheOther(layer, activation, first, last, x, rows, residual))
              << Name(compute) << ", " << rows << " rows";
        }
      }
    }
  }
}

// Of its own weights, and of those of files, which stay blocks of four bits.
TEST_P(FeedForwardTest, MatricesOfDifferentFormatsGoTogether) {
  const Layer layer(true);
  const int64_t rows = 20;
  const Floats x = Normal(rows * kHidden, 6), residual = Normal(rows * kOut, 7);
  for (const Compute one : kCpuComputes) {
    for (const Compute other : kCpuComputes) {
      const PackedWeight first = layer.PackedFirst(one), last = layer.PackedLast(other);
      Floats y(rows * kOut);
      FeedForward({first, last, Activation::kSilu, true, &layer.norm}, x.data(), rows, y.data(),
                  residual.data(), kScale);
      EXPECT_EQ(y, OneAfterTheOther(layer, Activation::kSilu, first, last, x, rows, residual));
    }
  }
}

// A norm, a gate, and their packing are no loops of their own.
TEST_P(FeedForwardTest, ThreadsMeetTwiceInASmallBatch) {
  const LoopThreads threads(2);
  const Layer layer(true, 1024);
  const PackedWeight first = layer.PackedFirst(Compute::kFloat32);
  const PackedWeight last = layer.PackedLast(Compute::kFloat32);
  const Floats x = Normal(4 * kHidden, 6);
  Floats y(4 * kOut);
  const uint64_t before = SharedLoops();
  FeedForward({first, last, Activation::kSilu, true, &layer.norm}, x.data(), 4, y.data());
  EXPECT_EQ(SharedLoops() - before, 2);
}

TEST(FeedForward, FitsWholeBlocks) {
  const auto fit = [](int64_t first_out, int64_t inner, bool gated) {
    PackedWeight first, last;
    first.out = first_out;
    last.in = inner;
    return FitFeedForward(first, last, gated);
  };
  EXPECT_TRUE(fit(64, 64, false));
  EXPECT_TRUE(fit(128, 64, true));
  EXPECT_FALSE(fit(64, 64, true));
  EXPECT_FALSE(fit(96, 48, true));  // half a block
}

}  // namespace
}  // namespace lmfusion
