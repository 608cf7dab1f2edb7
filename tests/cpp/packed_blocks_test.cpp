// Weights in the blocks of GGUF files, in bfloat16 and in stacks, and outputs without and beside
// members: every instruction set, against float64 of what the formats are defined to mean.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "every_instruction_set.h"
#include "kernels/device/numbers.h"
#include "kernels/linear/packed_weight.h"
#include "kernels/output/log_sum.h"
#include "kernels/output/packed_output.h"
#include "kernels/threads/parallel.h"
#include "random_matrices.h"

namespace lmfusion {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A float16 of a small number, and the number: q / 1024 is exact.
void PutHalf(uint8_t* bytes, int q) {
  const uint16_t bits = Convert<Float16>::From(static_cast<float>(q) / 1024).bits;
  std::memcpy(bytes, &bits, sizeof(bits));
}
float Half(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return ToFloat(Float16{bits});
}

// Random blocks of a type, [out, in / 32 * bytes of a block].
Bytes Blocks(WeightType type, int64_t out, int64_t in, uint32_t seed) {
  std::mt19937 random(seed);
  const int64_t size = BlockBytes(type);
  Bytes bytes(out * in / 32 * size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  for (size_t at = 0; at < bytes.size(); at += size) {
    PutHalf(&bytes[at], 1 + static_cast<int>(random() % 63));
    if (type == WeightType::kQ4_1) PutHalf(&bytes[at + 2], static_cast<int>(random() % 63) - 31);
  }
  return bytes;
}

// What a block's 32 weights are, as GGML defines its types.
float WeightOf(WeightType type, const uint8_t* block, int i) {
  const float d = Half(block);
  if (type == WeightType::kQ8_0) return d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
  const uint8_t* nibbles = block + (type == WeightType::kQ4_0 ? 2 : 4);
  const int q = i < 16 ? nibbles[i] & 15 : nibbles[i - 16] >> 4;
  return type == WeightType::kQ4_0 ? d * static_cast<float>(q - 8)
                                   : d * static_cast<float>(q) + Half(block + 2);
}
Floats WeightsOf(WeightType type, const Bytes& blocks) {
  Floats weights;
  for (size_t at = 0; at < blocks.size(); at += BlockBytes(type)) {
    for (int i = 0; i < 32; ++i) weights.push_back(WeightOf(type, &blocks[at], i));
  }
  return weights;
}

WeightMatrix MatrixOfBlocks(WeightType type, const Bytes& blocks, int64_t out, int64_t in) {
  WeightMatrix matrix;
  matrix.data = blocks.data();
  matrix.out = out;
  matrix.in = in;
  matrix.type = type;
  matrix.stride = BlockBytes(type);
  matrix.row_stride = in / 32 * matrix.stride;
  return matrix;
}

void RoundToBFloat16(Floats* values) {
  for (float& value : *values) value = ToFloat(Convert<BFloat16>::From(value));
}

// The products of some rows are those of `weights` in float64, up to `bound` of the sum of |x| |w|.
void ExpectProducts(const PackedWeight& packed, const Floats& weights, double bound) {
  const int64_t out = packed.out, in = packed.in;
  for (const int64_t rows : {1, 3, 13, 40}) {
    const Floats x = Normal(rows * in, 3);
    Floats y(rows * out);
    Multiply(packed, x.data(), rows, y.data());
    for (int64_t i = 0; i < rows * out; ++i) {
      double sum = packed.bias.empty() ? 0 : packed.bias[i % out], magnitude = std::abs(sum);
      for (int64_t k = 0; k < in; ++k) {
        const double product = double{x[i / out * in + k]} * weights[i % out * in + k];
        sum += product;
        magnitude += std::abs(product);
      }
      ASSERT_NEAR(y[i], sum, bound * magnitude + 1e-6) << rows << " rows";
    }
  }
}

void ExpectRows(const PackedWeight& packed, const Floats& weights, float bound) {
  Floats whole(weights.size()), row(packed.in);
  Widen(packed, whole.data());
  const int64_t last = packed.out - 1;
  ReadRows(packed, &last, 1, row.data());
  for (size_t i = 0; i < weights.size(); ++i) ASSERT_NEAR(whole[i], weights[i], bound);
  for (int64_t i = 0; i < packed.in; ++i) {
    ASSERT_NEAR(row[i], weights[last * packed.in + i], bound);
  }
}

constexpr double kFloatBound = 8.0 / (1 << 24);
constexpr int64_t kOut = 37, kIn = 96;
constexpr WeightType kBlockTypes[] = {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0};

class PackedBlocks : public EveryInstructionSet {};
INSTANTIATE_TEST_SUITE_P(Every, PackedBlocks, InstructionSets(), NameOfSet);

TEST_P(PackedBlocks, AreMultipliedAsTheyAre) {
  const Floats bias = Normal(kOut, 2);
  for (const WeightType type : kBlockTypes) {
    const Bytes blocks = Blocks(type, kOut, kIn, 1);
    const Floats weights = WeightsOf(type, blocks);
    const PackedWeight packed =
        PackWeight({MatrixOfBlocks(type, blocks, kOut, kIn)}, bias.data(), Compute::kFloat32);
    EXPECT_STREQ(Name(packed.format), type == WeightType::kQ8_0 ? "q8" : "q4");
    ExpectProducts(packed, weights, kFloatBound);
    ExpectRows(packed, weights, 1e-6f);
  }
}

// Where a stretch of weights has fewer blocks than the one after it, or more, and the panels that
// one thread works on are more than are worked on at once.
TEST_P(PackedBlocks, StretchesOfAnyLengthFollowEachOther) {
  const int64_t out = 17 * 16;
  const LoopThreads one(1);
  for (const int64_t in : {32, 96, 128, 160, 192, 224}) {
    Floats halves = Normal(out * in, 4);
    RoundToBFloat16(&halves);
    ExpectProducts(PackWeight({MatrixOf(halves, out, in)}, nullptr, Compute::kFloat32), halves,
                   kFloatBound);
    for (const WeightType type : {WeightType::kQ4_1, WeightType::kQ8_0}) {
      const Bytes blocks = Blocks(type, out, in, 1);
      const WeightMatrix matrix = MatrixOfBlocks(type, blocks, out, in);
      ExpectProducts(PackWeight({matrix}, nullptr, Compute::kFloat32), WeightsOf(type, blocks),
                     kFloatBound);
    }
  }
}

TEST_P(PackedBlocks, AreRoundedForOtherComputations) {
  for (const WeightType type : kBlockTypes) {
    const Bytes blocks = Blocks(type, kOut, kIn, 1);
    const Floats weights = WeightsOf(type, blocks);
    const auto packed = [&](Compute compute) {
      return PackWeight({MatrixOfBlocks(type, blocks, kOut, kIn)}, nullptr, compute);
    };
    ExpectProducts(packed(Compute::kBFloat16), weights, 1.0 / 250);
    ExpectProducts(packed(Compute::kInt8), weights, 1.0 / 20);
    // Four bits are kept, and eight stay eight.
    const PackedWeight four = packed(Compute::kInt4);
    EXPECT_STREQ(Name(four.format), type == WeightType::kQ8_0 ? "int8" : "q4");
    ExpectProducts(four, weights, 1.0 / 20);
    ExpectRows(four, weights, type == WeightType::kQ8_0 ? 0.05f : 1e-6f);
  }
}

// Weights of every type and inputs become the nearest bfloat16; sums lose no more than float32's.
TEST_P(PackedBlocks, OfBFloat16AreRoundedOnceAndSummedInFloat32) {
  const int64_t out = 37, in = 544, rows = 150;
  const Floats bias = Normal(out, 2), floats = Normal(out * in, 4), inputs = Normal(rows * in, 3);
  Floats x = inputs;
  RoundToBFloat16(&x);
  for (const WeightType type :
       {WeightType::kFloat, WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0}) {
    const bool blocks = type != WeightType::kFloat;
    const Bytes bytes = blocks ? Blocks(type, out, in, 1) : Bytes();
    Floats weights = blocks ? WeightsOf(type, bytes) : floats;
    const PackedWeight packed =
        PackWeight({blocks ? MatrixOfBlocks(type, bytes, out, in) : MatrixOf(floats, out, in)},
                   bias.data(), Compute::kBFloat16);
    EXPECT_STREQ(Name(packed.format), "bfloat16");
    RoundToBFloat16(&weights);
    Floats y(rows * out);
    Multiply(packed, inputs.data(), rows, y.data());
    for (int64_t i = 0; i < rows * out; ++i) {
      double sum = bias[i % out], magnitude = std::abs(sum);
      for (int64_t k = 0; k < in; ++k) {
        const double product = double{x[i / out * in + k]} * weights[i % out * in + k];
        sum += product;
        magnitude += std::abs(product);
      }
      ASSERT_NEAR(y[i], sum, kFloatBound * magnitude) << Name(type) << " row " << i / out;
    }
  }
}

TEST(KeepsWeightsTest, WhereNothingIsRounded) {
  for (const WeightType type :
       {WeightType::kFloat, WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0}) {
    const bool floats = type == WeightType::kFloat;
    const bool four = type == WeightType::kQ4_0 || type == WeightType::kQ4_1;
    for (const bool bfloat16 : {false, true}) {
      EXPECT_TRUE(KeepsWeights(type, bfloat16, Compute::kFloat32));
      EXPECT_EQ(KeepsWeights(type, bfloat16, Compute::kBFloat16), floats && bfloat16);
      EXPECT_FALSE(KeepsWeights(type, bfloat16, Compute::kFloat16));
      EXPECT_FALSE(KeepsWeights(type, bfloat16, Compute::kInt8));
      EXPECT_EQ(KeepsWeights(type, bfloat16, Compute::kInt4), four);
    }
  }
}

TEST_P(PackedBlocks, StackWithOtherTypes) {
  const Bytes four = Blocks(WeightType::kQ4_1, kOut, kIn, 1);
  const Bytes eight = Blocks(WeightType::kQ8_0, 3, kIn, 2);
  const Floats floats = Normal(5 * kIn, 4);
  Floats weights = WeightsOf(WeightType::kQ4_1, four);
  const Floats of_eight = WeightsOf(WeightType::kQ8_0, eight);
  weights.insert(weights.end(), of_eight.begin(), of_eight.end());
  weights.insert(weights.end(), floats.begin(), floats.end());
  const PackedWeight packed =
      PackWeight({MatrixOfBlocks(WeightType::kQ4_1, four, kOut, kIn),
                  MatrixOfBlocks(WeightType::kQ8_0, eight, 3, kIn), MatrixOf(floats, 5, kIn)},
                 nullptr, Compute::kFloat32);
  EXPECT_EQ(packed.out, kOut + 8);
  EXPECT_STREQ(Name(packed.format), "float32");
  ExpectProducts(packed, weights, kFloatBound);
}

// Every second float is skipped, rows are apart; bfloat16 as it is and float32 that fits it.
TEST_P(PackedBlocks, BFloat16IsHeldInHalfTheBytes) {
  const int64_t in = 45;
  Floats weights = Normal(kOut * in, 5);
  std::vector<uint16_t> halves(2 * kOut * in);
  for (size_t i = 0; i < weights.size(); ++i) {
    const BFloat16 rounded = Convert<BFloat16>::From(weights[i]);
    halves[2 * i] = rounded.bits;
    weights[i] = ToFloat(rounded);
  }
  WeightMatrix strided;
  strided.data = halves.data();
  strided.out = kOut;
  strided.in = in;
  strided.bfloat16 = true;
  strided.stride = 4;
  strided.row_stride = 4 * in;
  for (const WeightMatrix& matrix : {strided, MatrixOf(weights, kOut, in)}) {
    for (const Compute compute : {Compute::kFloat32, Compute::kBFloat16}) {
      const PackedWeight packed = PackWeight({matrix}, nullptr, compute);
      EXPECT_STREQ(Name(packed.format), "bfloat16");
      EXPECT_EQ(packed.bytes(), 3 * 2 * 16 * 64);  // panels of 16, blocks of 32, 16 rows of 64
      ExpectProducts(packed, weights, compute == Compute::kFloat32 ? kFloatBound : 1.0 / 250);
      ExpectRows(packed, weights, 0);
    }
  }
  weights[7 * in + 3] = 0.1f;  // one that does not fit
  const Floats bias(kOut, 1.0f);
  const PackedWeight packed =
      PackWeight({MatrixOf(weights, kOut, in)}, bias.data(), Compute::kFloat32);
  EXPECT_STREQ(Name(packed.format), "float32");
  EXPECT_EQ(packed.bytes(), 3 * 2 * 32 * 64 + 4 * kOut);
}

TEST_P(PackedBlocks, WhatIsNotFiniteComesThrough) {
  const Floats weights = Normal(kOut * kIn, 1);
  for (const Compute compute : {Compute::kFloat32, Compute::kInt8}) {
    const PackedWeight packed = PackWeight({MatrixOf(weights, kOut, kIn)}, nullptr, compute);
    Floats x(3 * kIn, 0.0f), y(3 * kOut);  // a row of zeros, one with infinity, one with NaN
    x[kIn + 5] = kInfinity;
    x[2 * kIn + 90] = NAN;
    Multiply(packed, x.data(), 3, y.data());
    for (int64_t i = 0; i < kOut; ++i) {
      EXPECT_EQ(y[i], 0);
      EXPECT_FALSE(std::isfinite(y[kOut + i]));
      EXPECT_TRUE(std::isnan(y[2 * kOut + i]));
    }
    Multiply(packed, x.data(), 0, nullptr);  // no rows, nothing to do
  }
  Floats wrong = weights;
  wrong[5] = kInfinity;
  for (const Compute compute : {Compute::kInt8, Compute::kInt4}) {
    EXPECT_THROW(PackWeight({MatrixOf(wrong, kOut, kIn)}, nullptr, compute), std::invalid_argument);
  }
  EXPECT_THROW(PackWeight({MatrixOf(weights, kOut, kIn)}, nullptr, Compute::kFloat16),
               std::invalid_argument);
}

TEST_P(PackedBlocks, QuantizedWeightsOfOneValue) {
  for (const float value : {0.0f, 0.75f}) {
    const Floats weights(kOut * kIn, value);
    for (const Compute compute : {Compute::kInt8, Compute::kInt4}) {
      ExpectRows(PackWeight({MatrixOf(weights, kOut, kIn)}, nullptr, compute), weights, 1e-3f);
    }
  }
}

// Logits in float64 of float32 weights, scaled and capped.
double LogitOf(const Floats& hidden, int64_t row, const Floats& weights, int64_t word, int64_t in,
               double bias, const LogitRule& rule) {
  double logit = bias;
  for (int64_t k = 0; k < in; ++k) logit += double{hidden[row * in + k]} * weights[word * in + k];
  logit *= rule.scale;
  return rule.softcap > 0 ? rule.softcap * std::tanh(logit / rule.softcap) : logit;
}

TEST_P(PackedBlocks, LogitsOfTokensFitTheNormalizers) {
  const int64_t words = 301, in = 33, rows = 3;
  const Floats weights = Normal(words * in, 1), hidden = Normal(rows * in, 2),
               bias = Normal(words, 3);
  for (const float softcap : {0.0f, 5.0f}) {
    for (const bool biased : {false, true}) {
      const LogitRule rule{0.7f, softcap};
      const PackedWeight packed = PackWeight({MatrixOf(weights, words, in)},
                                             biased ? bias.data() : nullptr, Compute::kFloat32);
      Floats all(rows), logits(rows), given = hidden;
      LogNormalizers({packed, rule}, hidden.data(), rows, nullptr, all.data(), nullptr);
      const int64_t row_numbers[] = {0, 2, 1}, tokens[] = {300, 0, 7};
      TokenLogits({packed, rule}, given.data(), rows, row_numbers, tokens, rows, logits.data());
      for (int64_t i = 0; i < rows; ++i) {
        const auto logit = [&](int64_t row, int64_t word) {
          return LogitOf(hidden, row, weights, word, in, biased ? bias[word] : 0, rule);
        };
        EXPECT_NEAR(logits[i], logit(row_numbers[i], tokens[i]), 1e-5);
        double sum = 0;
        for (int64_t word = 0; word < words; ++word) sum += std::exp(logit(i, word));
        EXPECT_NEAR(all[i], std::log(sum), 1e-5);
      }
      LogNormalizers({packed, rule}, hidden.data(), 0, nullptr, nullptr, nullptr);
    }
  }
  // Activations are rounded as products round them.
  for (const Compute compute : {Compute::kBFloat16, Compute::kInt8}) {
    const PackedWeight packed = PackWeight({MatrixOf(weights, words, in)}, nullptr, compute);
    Floats given = hidden, logit(1), y(words);
    const int64_t row = 0, token = 4;
    TokenLogits({packed, {1, 0}}, given.data(), rows, &row, &token, 1, logit.data());
    Multiply(packed, hidden.data(), 1, y.data());
    EXPECT_NEAR(logit[0], y[4], 2e-3) << Name(compute);
  }
}

// Two inputs: logits are set word by word.
TEST_P(PackedBlocks, MembersFarBelowKeepTheirDigits) {
  const int64_t words = 40;
  const auto normalizers = [&](const Floats& logits, const std::vector<uint8_t>& members) {
    const PackedWeight packed =
        PackWeight({MatrixOf(logits, words, 1)}, nullptr, Compute::kFloat32);
    const float one = 1;
    Floats all(1), of_members(1);
    LogNormalizers({packed, {1, 0}}, &one, 1, members.data(), all.data(), of_members.data());
    Floats alone(1);  // the same where members are not asked for
    LogNormalizers({packed, {1, 0}}, &one, 1, nullptr, alone.data(), nullptr);
    EXPECT_TRUE(alone == all || (std::isnan(alone[0]) && std::isnan(all[0])));
    return std::pair<float, float>{all[0], of_members[0]};
  };
  std::vector<uint8_t> members(words);
  members[3] = members[39] = 1;
  Floats logits(words, 0.0f);
  logits[3] = logits[39] = -90;
  const auto [all, of_members] = normalizers(logits, members);
  EXPECT_NEAR(all, std::log(38.0), 1e-5);
  EXPECT_NEAR(of_members, -90 + std::log(2.0), 1e-4);
  logits[3] = logits[39] = -kInfinity;
  EXPECT_EQ(normalizers(logits, members).second, -kInfinity);
  EXPECT_NEAR(normalizers(logits, members).first, std::log(38.0), 1e-5);
  logits[3] = logits[39] = -kInfinity;
  logits[0] = NAN;
  EXPECT_TRUE(std::isnan(normalizers(logits, members).second));
  EXPECT_TRUE(std::isnan(normalizers(logits, members).first));
  const auto [nothing, no_member] = normalizers(Floats(words, -kInfinity), members);
  EXPECT_EQ(nothing, -kInfinity);
  EXPECT_EQ(no_member, -kInfinity);
  EXPECT_TRUE(std::isnan(normalizers(Floats(words, NAN), members).first));
}

TEST(WeightNames, AreThoseOfFiles) {
  for (const char* name : {"float32", "bfloat16", "float16", "int8", "int4"}) {
    EXPECT_STREQ(Name(ComputeByName(name)), name);
  }
  for (const char* name : {"float", "q4_0", "q4_1", "q8_0"}) {
    EXPECT_STREQ(Name(WeightTypeByName(name)), name);
  }
  EXPECT_THROW(ComputeByName("float64"), std::invalid_argument);
  EXPECT_THROW(WeightTypeByName("q5_1"), std::invalid_argument);
  EXPECT_EQ(BlockBytes(WeightType::kFloat), 0);
}

TEST(LogSum, JoinsAndKeepsNaN) {
  const LogSum empty = EmptyLogSum(), two{0, 2}, small{-50, 3};
  EXPECT_FLOAT_EQ(ValueOf(Combined(two, small)), std::log(2 + 3 * std::exp(-50.0)));
  EXPECT_FLOAT_EQ(ValueOf(Combined(small, two)), std::log(2 + 3 * std::exp(-50.0)));
  EXPECT_FLOAT_EQ(ValueOf(Combined(empty, two)), std::log(2.0));
  EXPECT_EQ(ValueOf(Combined(empty, empty)), -kInfinity);
  EXPECT_TRUE(std::isnan(ValueOf(Combined({0, NAN}, two))));
  EXPECT_TRUE(std::isnan(ValueOf(Combined(two, {0, NAN}))));
}

TEST(Numbers, AtTheEndsOfTheirRanges) {
  // The bits are those of IEEE 754 and of the open compute project's E4M3.
  EXPECT_EQ(Convert<Float16>::From(65504).bits, 0x7bff);
  EXPECT_EQ(Convert<Float16>::From(65520).bits, 0x7c00);
  EXPECT_EQ(Convert<Float16>::From(-kInfinity).bits, 0xfc00);
  EXPECT_TRUE(std::isnan(ToFloat(Convert<Float16>::From(NAN))));
  EXPECT_EQ(ToFloat(Float16{0xfc00}), -kInfinity);
  EXPECT_TRUE(std::isnan(ToFloat(Convert<BFloat16>::From(NAN))));
  EXPECT_EQ(Convert<Float8>::From(448).bits, 0x7e);
  EXPECT_EQ(Convert<Float8>::From(-1e9f).bits, 0xfe);
  EXPECT_TRUE(std::isnan(ToFloat(Convert<Float8>::From(NAN))));
  EXPECT_EQ(Convert<float>::From(0.1f), 0.1f);
}

}  // namespace
}  // namespace lmfusion
