// Packing, products and log-normalisers without torch: every instruction set, shapes with rests,
// against float64. tests/cpp/packed_linear_test.cpp has blocks of files and every `compute`.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "every_instruction_set.h"
#include "kernels/linear/packed_weight.h"
#include "kernels/output/packed_output.h"
#include "kernels/threads/parallel.h"
#include "kernels/threads/scratch.h"
#include "random_matrices.h"

namespace lmfusion {
namespace {

class PackedWeightTest : public EveryInstructionSet {};
INSTANTIATE_TEST_SUITE_P(Every, PackedWeightTest, InstructionSets(), NameOfSet);

// What a product in each type may be off, relative to the sum of |x| |w|: of float32 sums; of
// bfloat16, 2^-9 a factor; of 8 and 4 bits, half a step of 127 a factor, or of 15 in a range.
double BoundOf(Compute compute) {
  switch (compute) {
    case Compute::kFloat32: return 8.0 / (1 << 24);
    case Compute::kFloat16: break;  // the CPU has none
    case Compute::kBFloat16: return 1.0 / 250;
    case Compute::kInt8: return 1.0 / 20;
    case Compute::kInt4: return 1.0 / 4;
  }
  return 0;
}

TEST_P(PackedWeightTest, ProductsAreThoseOfFloat64) {
  for (const auto& [out, in] : {std::pair<int64_t, int64_t>{1, 1}, {37, 65}, {64, 577}}) {
    const Floats weights = Normal(out * in, 1), bias = Normal(out, 2);
    for (const Compute compute :
         {Compute::kFloat32, Compute::kBFloat16, Compute::kInt8, Compute::kInt4}) {
      const PackedWeight packed = PackWeight({MatrixOf(weights, out, in)}, bias.data(), compute);
      for (const int64_t rows : {1, 2, 5, 24, 31, 70}) {
        const Floats x = Normal(rows * in, 3), residual = Normal(rows * out, 4);
        Floats y(rows * out), added(rows * out);
        Multiply(packed, x.data(), rows, y.data());
        Multiply(packed, x.data(), rows, added.data(), residual.data(), 0.5f);
        for (int64_t i = 0; i < rows * out; ++i) {
          double sum = bias[i % out], magnitude = std::abs(sum);
          for (int64_t k = 0; k < in; ++k) {
            const double product = double{x[i / out * in + k]} * weights[i % out * in + k];
            sum += product;
            magnitude += std::abs(product);
          }
          ASSERT_NEAR(y[i], sum, BoundOf(compute) * magnitude + 1e-6) << Name(compute);
          ASSERT_NEAR(added[i], residual[i] + 0.5 * y[i], 1e-5);
        }
      }
    }
  }
}

TEST_P(PackedWeightTest, RowsAndTheWholeAreTheWeights) {
  const int64_t out = 37, in = 65;
  const Floats weights = Normal(out * in, 1);
  const PackedWeight packed = PackWeight({MatrixOf(weights, out, in)}, nullptr, Compute::kFloat32);
  Floats whole(out * in), rows(2 * in);
  Widen(packed, whole.data());
  EXPECT_EQ(whole, weights);
  const int64_t numbers[] = {36, 0};
  ReadRows(packed, numbers, 2, rows.data());
  for (int64_t i = 0; i < in; ++i) {
    EXPECT_EQ(rows[i], weights[36 * in + i]);
    EXPECT_EQ(rows[in + i], weights[i]);
  }
}

TEST_P(PackedWeightTest, LogNormalizersAreThoseOfAllLogits) {
  const int64_t words = 1001, in = 33, rows = 19;
  const Floats weights = Normal(words * in, 1), hidden = Normal(rows * in, 2);
  const PackedWeight packed =
      PackWeight({MatrixOf(weights, words, in)}, nullptr, Compute::kFloat32);
  std::vector<uint8_t> members(words);
  for (int64_t i = 0; i < words; i += 7) members[i] = 1;
  for (const float softcap : {0.0f, 5.0f}) {
    Floats all(rows), of_members(rows);
    LogNormalizers({packed, {0.7f, softcap}}, hidden.data(), rows, members.data(), all.data(),
                   of_members.data());
    for (int64_t row = 0; row < rows; ++row) {
      double sum = 0, members_sum = 0;
      for (int64_t word = 0; word < words; ++word) {
        double logit = 0;
        for (int64_t k = 0; k < in; ++k) {
          logit += double{hidden[row * in + k]} * weights[word * in + k];
        }
        logit *= 0.7;
        if (softcap > 0) logit = softcap * std::tanh(logit / softcap);
        sum += std::exp(logit);
        if (members[word]) members_sum += std::exp(logit);
      }
      EXPECT_NEAR(all[row], std::log(sum), 1e-5);
      EXPECT_NEAR(of_members[row], std::log(members_sum), 1e-5);
    }
  }
}

// Many threads that call one after another leave the working memory of one.
TEST_P(PackedWeightTest, CallersShareTheirWorkingMemory) {
  const int64_t out = 64, in = 512, rows = 40;
  const Floats weights = Normal(out * in, 1), x = Normal(rows * in, 2);
  const PackedWeight packed = PackWeight({MatrixOf(weights, out, in)}, nullptr, Compute::kBFloat16);
  const auto call = [&] {
    const LoopThreads alone(1);
    Floats y(rows * out);
    Multiply(packed, x.data(), rows, y.data());
  };
  call();
  const int64_t of_one = ScratchBytes();
  for (int i = 0; i < 30; ++i) std::thread(call).join();
  EXPECT_EQ(ScratchBytes(), of_one);
}

// The same matrix, whose content is not where it belongs: there are numbers that are not finite.
WeightMatrix Unread(const WeightMatrix& matrix, std::atomic<int64_t>* bytes_read) {
  WeightMatrix unread = matrix;
  const auto* const content = static_cast<const uint8_t*>(matrix.data);
  const auto place = std::make_shared<std::vector<uint8_t>>(matrix.out * matrix.row_stride, 0xff);
  unread.data = place->data();
  unread.read = [content, place, bytes_read](const void* from, int64_t bytes, void* to) {
    std::memcpy(to, content + (static_cast<const uint8_t*>(from) - place->data()), bytes);
    *bytes_read += bytes;
  };
  return unread;
}

TEST_P(PackedWeightTest, WhatIsReadWhileItIsPackedIsPackedAlike) {
  const int64_t in = 65;
  const Floats first = Normal(37 * in, 1), second = Normal(20 * in, 2), third = Normal(3 * in, 3);
  const std::vector<WeightMatrix> stack = {MatrixOf(first, 37, in), MatrixOf(second, 20, in),
                                           MatrixOf(third, 3, in)};
  for (const Compute compute :
       {Compute::kFloat32, Compute::kBFloat16, Compute::kInt8, Compute::kInt4}) {
    const PackedWeight packed = PackWeight(stack, nullptr, compute);
    Floats expected(60 * in), read(60 * in);
    Widen(packed, expected.data());
    for (unsigned which = 1; which < 8; ++which) {  // which of the three are read
      std::atomic<int64_t> bytes_read{0};
      std::vector<WeightMatrix> unread = stack;
      int64_t bytes = 0;
      for (size_t i = 0; i < 3; ++i) {
        if ((which >> i & 1) == 0) continue;
        unread[i] = Unread(stack[i], &bytes_read);
        bytes += stack[i].out * stack[i].row_stride;
      }
      Widen(PackWeight(unread, nullptr, compute), read.data());
      EXPECT_EQ(read, expected) << Name(compute) << " " << which;
      if (compute != Compute::kFloat32) {  // which looks at them first
        EXPECT_EQ(bytes_read, bytes);
      }
    }
  }
}

TEST(PackedWeight, AnErrorOfReadingIsThatOfPacking) {
  const Floats weights = Normal(640 * 64, 1);
  WeightMatrix matrix = MatrixOf(weights, 640, 64);
  matrix.read = [](const void*, int64_t, void*) { throw std::runtime_error("it is gone"); };
  for (const Compute compute : {Compute::kFloat32, Compute::kInt8}) {
    EXPECT_THROW(PackWeight({matrix}, nullptr, compute), std::runtime_error);
  }
}

}  // namespace
}  // namespace lmfusion
