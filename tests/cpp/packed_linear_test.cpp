#include "ops/packed_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <thread>

#include "every_instruction_set.h"

namespace lmfusion {
namespace {

// The oracle of every product is float64 arithmetic of ATen; that of the blocks is ReadBlocks
// below, written from the description of the GGUF formats.

class PackedLinear : public EveryInstructionSet {
 protected:
  void SetUp() override {
    EveryInstructionSet::SetUp();
    at::manual_seed(7);
  }
};

INSTANTIATE_TEST_SUITE_P(Every, PackedLinear, InstructionSets(), NameOfSet);

float HalfAt(const uint8_t* bytes) {
  c10::Half half;
  std::memcpy(&half, bytes, 2);
  return half;
}

int64_t BlockSize(WeightType type) {
  return type == WeightType::kQ4_0 ? 18 : type == WeightType::kQ4_1 ? 20 : 34;
}

// Blocks with random scales, minima and bits.
at::Tensor RandomBlocks(WeightType type, int64_t out, int64_t in) {
  const int64_t size = BlockSize(type);
  at::Tensor data = at::randint(0, 256, {out, in / 32 * size}, at::kByte);
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(0.001f, 0.02f);
  for (int64_t i = 0; i < data.numel() / size; ++i) {
    uint8_t* block = data.data_ptr<uint8_t>() + i * size;
    const c10::Half scale(uniform(random)), minimum(-8 * uniform(random));
    std::memcpy(block, &scale, 2);
    if (type == WeightType::kQ4_1) std::memcpy(block + 2, &minimum, 2);
  }
  return data;
}

at::Tensor ReadBlocks(WeightType type, const at::Tensor& data) {
  const int64_t size = BlockSize(type), blocks = data.size(1) / size;
  at::Tensor weight = at::empty({data.size(0), blocks * 32}, at::kFloat);
  for (int64_t i = 0; i < data.size(0) * blocks; ++i) {
    const uint8_t* block = data.data_ptr<uint8_t>() + i * size;
    float* w = weight.data_ptr<float>() + i * 32;
    const float d = HalfAt(block);
    for (int k = 0; k < 32; ++k) {
      if (type == WeightType::kQ8_0) {
        w[k] = d * static_cast<float>(static_cast<int8_t>(block[2 + k]));
        continue;
      }
      const uint8_t* nibbles = block + (type == WeightType::kQ4_1 ? 4 : 2);
      const int q = k < 16 ? nibbles[k] & 15 : nibbles[k - 16] >> 4;
      w[k] = type == WeightType::kQ4_1 ? d * static_cast<float>(q) + HalfAt(block + 2)
                                       : d * static_cast<float>(q - 8);
    }
  }
  return weight;
}

at::Tensor Product64(const at::Tensor& x, const at::Tensor& weight) {
  return at::matmul(x.to(at::kDouble), weight.to(at::kDouble).t());
}

// sum_k |x_k| |w_k|: what rounding errors of a product are relative to.
at::Tensor Magnitude(const at::Tensor& x, const at::Tensor& weight) {
  return Product64(x.abs(), weight.abs());
}

// The largest error relative to a bound of each element.
double Excess(const at::Tensor& y, const at::Tensor& exact, const at::Tensor& bound) {
  EXPECT_EQ(y.sizes(), exact.sizes());
  const at::Tensor off = (y.to(at::kDouble) - exact).abs() / (bound + 1e-30);
  return off.max().item<double>();
}

// Rounding errors of sums of n products in any order: n * 2^-24 of the magnitude at worst; those
// of a sum in several chains stay far below. 8 * 2^-24 holds good float32 products to their class.
constexpr double kFloat32Bound = 8.0 / (1 << 24);

void ExpectExact(const PackedMatrix& matrix, const at::Tensor& weight, int64_t rows) {
  const at::Tensor x = at::randn({rows, weight.size(1)});
  EXPECT_LE(Excess(matrix.Multiply(x), Product64(x, weight), Magnitude(x, weight)), kFloat32Bound)
      << rows << " rows, " << weight.sizes() << " as " << matrix.format();
}

bool SamePanels(const PackedMatrix& a, const PackedMatrix& b) {
  return a.bytes() == b.bytes() &&
         std::memcmp(a.weight().panels.get(), b.weight().panels.get(), a.bytes()) == 0;
}

const int64_t kAllRows[] = {1, 2, 3, 4, 5, 7, 8, 13, 15, 16, 17, 24, 31, 33, 47, 70};

TEST_P(PackedLinear, MultipliesFloat32WeightsOfAnyShape) {
  for (const auto& [out, in] :
       {std::pair<int64_t, int64_t>{1, 1}, {5, 31}, {16, 32}, {37, 65}, {129, 96}, {64, 577}}) {
    const at::Tensor weight = at::randn({out, in});
    const auto matrix = PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kFloat32);
    EXPECT_EQ(matrix->format(), "float32");
    EXPECT_TRUE(at::equal(matrix->Dequantized(), weight));
    for (int64_t rows : kAllRows) ExpectExact(*matrix, weight, rows);
  }
}

TEST_P(PackedLinear, HoldsWhatFitsBFloat16InHalfTheBytes) {
  const at::Tensor weight = at::randn({75, 95}).to(at::kBFloat16).to(at::kFloat);
  const auto matrix = PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kFloat32);
  EXPECT_EQ(matrix->format(), "bfloat16");
  EXPECT_TRUE(at::equal(matrix->Dequantized(), weight));
  for (int64_t rows : kAllRows) ExpectExact(*matrix, weight, rows);
  const auto same =
      PackedMatrix::Pack({{weight.to(at::kBFloat16)}}, std::nullopt, Compute::kFloat32);
  EXPECT_TRUE(SamePanels(*same, *matrix));
}

// Note [Same bits]: a row's products do not depend on the rows beside it.
TEST_P(PackedLinear, ARowHasTheSameBitsAmongAnyOthers) {
  const int64_t out = 147, in = 1216;
  const at::Tensor floats = at::randn({out, in}), halves = floats.to(at::kBFloat16);
  const WeightRows weights[] = {{floats},
                                {halves},
                                {RandomBlocks(WeightType::kQ4_1, out, in), WeightType::kQ4_1},
                                {RandomBlocks(WeightType::kQ8_0, out, in), WeightType::kQ8_0}};
  const at::Tensor x = at::randn({70, in});
  for (const WeightRows& weight : weights) {
    for (Compute compute :
         {Compute::kFloat32, Compute::kBFloat16, Compute::kInt8, Compute::kInt4}) {
      const auto matrix = PackedMatrix::Pack({weight}, at::randn({out}), compute);
      const at::Tensor all = matrix->Multiply(x);
      for (int64_t rows : kAllRows) {
        EXPECT_TRUE(at::equal(matrix->Multiply(x.slice(0, 0, rows)), all.slice(0, 0, rows)))
            << rows << " rows of " << matrix->format() << " in " << Name(compute);
      }
    }
  }
}

TEST_P(PackedLinear, ReadsFloatsOfAnyStrides) {
  const at::Tensor wide = at::randn({95, 75});
  const at::Tensor half = at::randn({75, 190}).to(at::kBFloat16);
  for (const at::Tensor& weight : {wide.t(), half.slice(1, 0, 190, 2)}) {
    for (Compute compute : {Compute::kFloat32, Compute::kBFloat16, Compute::kInt8}) {
      const auto strided = PackedMatrix::Pack({{weight}}, std::nullopt, compute);
      const auto plain = PackedMatrix::Pack({{weight.contiguous()}}, std::nullopt, compute);
      EXPECT_EQ(strided->format(), plain->format());
      EXPECT_TRUE(SamePanels(*strided, *plain));
    }
    ExpectExact(*PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kFloat32),
                weight.to(at::kFloat), 15);
  }
  const at::Tensor narrow = half.slice(1, 0, 190, 2);
  const auto both = PackedMatrix::Pack({{wide.t()}, {narrow}}, std::nullopt, Compute::kFloat32);
  EXPECT_EQ(both->format(), "float32");
  EXPECT_TRUE(at::equal(both->Dequantized(), at::cat({wide.t(), narrow.to(at::kFloat)})));
}

TEST_P(PackedLinear, MultipliesBlocksAsTheyAre) {
  for (WeightType type : {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ8_0}) {
    for (const auto& [out, in] : {std::pair<int64_t, int64_t>{3, 32}, {53, 96}, {80, 288}}) {
      const at::Tensor data = RandomBlocks(type, out, in);
      const at::Tensor weight = ReadBlocks(type, data);
      const auto matrix = PackedMatrix::Pack({{data, type}}, std::nullopt, Compute::kFloat32);
      EXPECT_TRUE(at::equal(matrix->Dequantized(), weight));
      for (int64_t rows : kAllRows) ExpectExact(*matrix, weight, rows);
    }
  }
}

TEST_P(PackedLinear, AddsTheBias) {
  const at::Tensor weight = at::randn({37, 40}), bias = at::randn({37}) * 100;
  const auto matrix = PackedMatrix::Pack({{weight}}, bias, Compute::kFloat32);
  for (int64_t rows : {1, 15, 40}) {
    const at::Tensor x = at::randn({rows, 40});
    EXPECT_LE(
        Excess(matrix->Multiply(x), Product64(x, weight) + bias, Magnitude(x, weight) + bias.abs()),
        kFloat32Bound);
  }
}

TEST_P(PackedLinear, StacksMatrices) {
  const at::Tensor first = at::randn({19, 64}), second = at::randn({7, 64});
  const auto floats = PackedMatrix::Pack({{first}, {second}}, std::nullopt, Compute::kFloat32);
  EXPECT_TRUE(at::equal(floats->Dequantized(), at::cat({first, second})));
  ExpectExact(*floats, at::cat({first, second}), 15);

  const at::Tensor q4 = RandomBlocks(WeightType::kQ4_1, 21, 64);
  const at::Tensor q8 = RandomBlocks(WeightType::kQ8_0, 18, 64);
  const auto blocks = PackedMatrix::Pack({{q4, WeightType::kQ4_1}, {q4, WeightType::kQ4_1}},
                                         std::nullopt, Compute::kFloat32);
  const at::Tensor weight = ReadBlocks(WeightType::kQ4_1, q4);
  EXPECT_EQ(blocks->format(), "q4");
  ExpectExact(*blocks, at::cat({weight, weight}), 15);

  const auto mixed = PackedMatrix::Pack({{q4, WeightType::kQ4_1}, {q8, WeightType::kQ8_0}},
                                        std::nullopt, Compute::kFloat32);
  ExpectExact(*mixed, at::cat({weight, ReadBlocks(WeightType::kQ8_0, q8)}), 15);
}

TEST_P(PackedLinear, KeepsLeadingDimensions) {
  const at::Tensor weight = at::randn({10, 32}), x = at::randn({2, 3, 64}).slice(2, 0, 32);
  const auto matrix = PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kFloat32);
  EXPECT_LE(Excess(matrix->Multiply(x), Product64(x, weight), Magnitude(x, weight)), kFloat32Bound);
  EXPECT_EQ(matrix->Multiply(at::randn({0, 32})).sizes(), (std::vector<int64_t>{0, 10}));
  EXPECT_EQ(matrix->Multiply(at::randn({32})).sizes(), (std::vector<int64_t>{10}));
}

// Rounding a value to bfloat16 costs 2^-9 of it at most: so a product of two 2^-8 and a little.
TEST_P(PackedLinear, BFloat16StaysWithinItsRounding) {
  const double bound = 1.0 / 256 + 1.0 / (1 << 17);
  const at::Tensor floats = at::randn({53, 160});
  const at::Tensor q4 = RandomBlocks(WeightType::kQ4_1, 53, 160);
  const at::Tensor q8 = RandomBlocks(WeightType::kQ8_0, 53, 160);
  const std::pair<WeightRows, at::Tensor> cases[] = {
      {{floats}, floats},
      {{q4, WeightType::kQ4_1}, ReadBlocks(WeightType::kQ4_1, q4)},
      {{q8, WeightType::kQ8_0}, ReadBlocks(WeightType::kQ8_0, q8)}};
  for (const auto& [rows_in, weight] : cases) {
    const auto matrix = PackedMatrix::Pack({rows_in}, std::nullopt, Compute::kBFloat16);
    for (int64_t rows : kAllRows) {
      const at::Tensor x = at::randn({rows, 160});
      const double excess = Excess(matrix->Multiply(x), Product64(x, weight), Magnitude(x, weight));
      EXPECT_LE(excess, bound) << rows << " rows as " << matrix->format();
      EXPECT_GT(excess, kFloat32Bound);
    }
  }
}

// sum_k |x_k| max|w| over each block of 32, and the other way round: rounding x costs at most half
// a step, a 254th of the largest |x| of its block, against each weight.
at::Tensor RoundingBound(const at::Tensor& rounded, const at::Tensor& other, double half_steps) {
  const int64_t blocks = rounded.size(1) / 32;
  const at::Tensor largest = rounded.abs().view({-1, blocks, 32}).amax(2).to(at::kDouble);
  const at::Tensor sums = other.abs().view({-1, blocks, 32}).sum(2).to(at::kDouble);
  return at::matmul(largest, sums.t()) / half_steps;
}

// Half a step, a 254th of the largest |weight| of each row.
at::Tensor HalfSteps(const at::Tensor& weight) {
  return (weight.abs().amax(1, true) / 253.9).expand_as(weight).to(at::kDouble);
}

TEST_P(PackedLinear, Int8StaysWithinItsRounding) {
  const at::Tensor q4 = RandomBlocks(WeightType::kQ4_1, 53, 160);
  const at::Tensor q8 = RandomBlocks(WeightType::kQ8_0, 53, 160);
  const at::Tensor floats = at::randn({53, 160});
  const std::pair<WeightRows, at::Tensor> cases[] = {
      {{q4, WeightType::kQ4_1}, ReadBlocks(WeightType::kQ4_1, q4)},
      {{q8, WeightType::kQ8_0}, ReadBlocks(WeightType::kQ8_0, q8)},
      {{floats}, floats}};
  for (const auto& [rows_in, weight] : cases) {
    const auto matrix = PackedMatrix::Pack({rows_in}, std::nullopt, Compute::kInt8);
    EXPECT_EQ(matrix->format(), "int8");
    const at::Tensor held = matrix->Dequantized();
    EXPECT_LE(Excess(held, weight.to(at::kDouble), HalfSteps(weight)), 1);
    for (int64_t rows : kAllRows) {
      at::Tensor x = at::randn({rows, 160});
      x.select(1, 40).mul_(300);  // an outlier costs its own block only
      const at::Tensor bound = RoundingBound(x, held, 253.9) + Magnitude(x, held) * 1e-6;
      const double excess = Excess(matrix->Multiply(x), Product64(x, held), bound);
      EXPECT_LE(excess, 1) << rows << " rows";
      EXPECT_GT(excess, 1e-3);
    }
  }
}

TEST_P(PackedLinear, Int4KeepsBlocksOf4Bits) {
  const at::Tensor q4 = RandomBlocks(WeightType::kQ4_1, 53, 160);
  const auto matrix = PackedMatrix::Pack({{q4, WeightType::kQ4_1}}, std::nullopt, Compute::kInt4);
  const at::Tensor weight = ReadBlocks(WeightType::kQ4_1, q4);
  EXPECT_TRUE(at::equal(matrix->Dequantized(), weight));
  for (int64_t rows : kAllRows) {
    at::Tensor x = at::randn({rows, 160});
    x.select(1, 40).mul_(300);
    const at::Tensor bound = RoundingBound(x, weight, 253.9) + Magnitude(x, weight) * 1e-6;
    EXPECT_LE(Excess(matrix->Multiply(x), Product64(x, weight), bound), 1) << rows << " rows";
  }
}

// Bytes at their largest: sums of products that a narrower type could not hold. Weights and
// activations are as many whole steps, so that nothing is rounded but the scales.
TEST_P(PackedLinear, SumsOfTheLargestBytesFit) {
  const int64_t out = 35, in = 192;
  at::Tensor q4 = at::full({out, in / 32 * 20}, 0xff, at::kByte);  // every nibble is 15
  for (int64_t i = 0; i < q4.numel() / 20; ++i) {
    const c10::Half scale(0.125f), minimum(0.0f);
    std::memcpy(q4.data_ptr<uint8_t>() + 20 * i, &scale, 2);
    std::memcpy(q4.data_ptr<uint8_t>() + 20 * i + 2, &minimum, 2);
  }
  const at::Tensor ones = at::ones({out, in});
  at::Tensor signs = ones.clone();  // -1 1 1 -1 1 1 ...
  signs.slice(1, 0, in, 3).neg_();
  for (int64_t rows : {1, 5, 13, 70}) {
    for (const at::Tensor& x : {at::ones({rows, in}), -at::ones({rows, in}),
                                signs.slice(0, 0, 1).expand({rows, in}).contiguous()}) {
      const auto int4 = PackedMatrix::Pack({{q4, WeightType::kQ4_1}}, std::nullopt, Compute::kInt4);
      const at::Tensor nibbles = ones * (15 * 0.125);
      EXPECT_LE(Excess(int4->Multiply(x), Product64(x, nibbles), Magnitude(x, nibbles)), 1e-6);
      for (const at::Tensor& weight : {ones, -ones, signs}) {
        const auto int8 = PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kInt8);
        EXPECT_LE(Excess(int8->Multiply(x), Product64(x, weight), Magnitude(x, weight)), 1e-6);
      }
    }
  }
}

TEST_P(PackedLinear, FloatWeightsGet8BitsOrBlocksOf4) {
  const at::Tensor weight = at::randn({37, 128});
  const at::Tensor blocks = weight.view({37, 4, 32});
  const auto int8 = PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kInt8);
  EXPECT_EQ(int8->format(), "int8");
  const auto int4 = PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kInt4);
  EXPECT_EQ(int4->format(), "q4");
  const at::Tensor range = blocks.amax(2) - blocks.amin(2);
  const at::Tensor off =
      (int4->Dequantized() - weight).to(at::kDouble).view({37, 4, 32}).square().mean(2).sqrt();
  // Rounding to a grid of sixteen over the whole range costs range / 30 at most, and a narrower
  // range is taken only where the mean square is smaller.
  EXPECT_LE((off / range).max().item<double>(), 1.0 / 30 + 1e-3);
  for (const auto& matrix : {int8, int4}) {
    const at::Tensor held = matrix->Dequantized();
    for (int64_t rows : {1, 6, 40}) {
      const at::Tensor x = at::randn({rows, 128});
      const at::Tensor bound = RoundingBound(x, held, 253.9) + Magnitude(x, held) * 1e-6;
      EXPECT_LE(Excess(matrix->Multiply(x), Product64(x, held), bound), 1);
    }
  }
}

TEST_P(PackedLinear, ShortBlocksAreFilledWithZeros) {
  const at::Tensor weight = at::randn({9, 45}) + 3;
  for (Compute compute : {Compute::kInt8, Compute::kInt4}) {
    const auto matrix = PackedMatrix::Pack({{weight}}, std::nullopt, compute);
    const at::Tensor held = matrix->Dequantized(), x = at::randn({4, 45});
    EXPECT_EQ(held.sizes(), weight.sizes());
    const at::Tensor padded_x = at::constant_pad_nd(x, {0, 19});
    const at::Tensor padded = at::constant_pad_nd(held, {0, 19});
    const at::Tensor bound = RoundingBound(padded_x, padded, 253.9) + Magnitude(x, held) * 1e-6;
    EXPECT_LE(Excess(matrix->Multiply(x), Product64(x, held), bound), 1);
  }
}

TEST_P(PackedLinear, PassesOnWhatIsNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const at::Tensor weight = at::rand({20, 64}) + 0.5;
  for (Compute compute : {Compute::kFloat32, Compute::kBFloat16, Compute::kInt8, Compute::kInt4}) {
    const auto matrix = PackedMatrix::Pack({{weight}}, std::nullopt, compute);
    for (int64_t rows : {2, 9, 40}) {
      for (float bad : {nan, infinity}) {
        at::Tensor x = at::randn({rows, 64});
        x[1][33] = bad;
        const at::Tensor y = matrix->Multiply(x);
        EXPECT_FALSE(at::isfinite(y[1]).any().item<bool>()) << Name(compute) << " " << rows;
        EXPECT_TRUE(at::isfinite(y[0]).all().item<bool>()) << Name(compute) << " " << rows;
      }
    }
  }
  at::Tensor bad_weight = weight.clone();
  bad_weight[3][5] = nan;
  const auto matrix = PackedMatrix::Pack({{bad_weight}}, std::nullopt, Compute::kFloat32);
  EXPECT_TRUE(matrix->Multiply(at::randn({4, 64})).isnan().sum(0).eq(4).sum().item<int64_t>() == 1);
  EXPECT_THROW(PackedMatrix::Pack({{bad_weight}}, std::nullopt, Compute::kInt8),
               std::invalid_argument);
}

TEST_P(PackedLinear, GivesRows) {
  const at::Tensor floats = at::randn({50, 70});
  const at::Tensor q4 = RandomBlocks(WeightType::kQ4_0, 50, 64);
  const at::Tensor q8 = RandomBlocks(WeightType::kQ8_0, 50, 96);
  const at::Tensor ids = at::tensor({49L, 0L, 17L, 16L, 17L, 31L}).view({2, 3});
  for (const WeightRows& rows :
       {WeightRows{floats}, WeightRows{floats.to(at::kBFloat16)}, WeightRows{q4, WeightType::kQ4_0},
        WeightRows{q8, WeightType::kQ8_0}}) {
    const auto matrix = PackedMatrix::Pack({rows}, std::nullopt, Compute::kFloat32);
    const at::Tensor whole = rows.type == WeightType::kFloat ? rows.data.to(at::kFloat)
                                                             : ReadBlocks(rows.type, rows.data);
    EXPECT_TRUE(at::equal(matrix->Rows(ids), at::embedding(whole, ids)));
  }
  const auto matrix = PackedMatrix::Pack({{floats}}, std::nullopt, Compute::kFloat32);
  EXPECT_THROW(matrix->Rows(at::tensor({50L})), c10::IndexError);
  EXPECT_THROW(matrix->Rows(at::tensor({-1L})), c10::IndexError);
}

TEST_P(PackedLinear, ManyThreadsAtOnceGetTheSame) {
  const at::Tensor weight = at::randn({333, 64});
  const auto matrix = PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kFloat32);
  std::vector<at::Tensor> inputs, expected;
  for (int i = 0; i < 8; ++i) {
    inputs.push_back(at::randn({1 + 5 * i, 64}));
    expected.push_back(matrix->Multiply(inputs.back()));
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      at::set_num_threads(1 + i % 4);
      for (int n = 0; n < 50; ++n) {
        if (!at::equal(matrix->Multiply(inputs[i]), expected[i])) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// Each product is that of one set from end to end, whichever it began with.
TEST(PackedMatrixTest, InstructionSetMayChangeWhileProductsRun) {
  at::manual_seed(7);
  const at::Tensor weight = at::randn({333, 96}), x = at::randn({30, 96});
  const auto matrix = PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kBFloat16);
  std::vector<at::Tensor> expected;
  for (InstructionSet set : AllInstructionSets()) {
    SetInstructionSet(set);
    expected.push_back(matrix->Multiply(x));
  }
  std::atomic<int> wrong{0};
  std::atomic<bool> done{false};
  std::thread multiplies([&] {
    while (!done) {
      const at::Tensor y = matrix->Multiply(x);
      const bool known = std::any_of(expected.begin(), expected.end(),
                                     [&](const at::Tensor& one) { return at::equal(y, one); });
      if (!known) ++wrong;
    }
  });
  for (int n = 0; n < 200; ++n) {
    for (InstructionSet set : AllInstructionSets()) SetInstructionSet(set);
    std::this_thread::yield();
  }
  done = true;
  multiplies.join();
  SetInstructionSet(BestInstructionSet());
  EXPECT_EQ(wrong, 0);
}

TEST(PackedMatrixTest, EveryInstructionSetReadsTheSamePanels) {
  const at::Tensor weight = at::randn({40, 64});
  for (Compute compute : {Compute::kBFloat16, Compute::kInt8, Compute::kInt4}) {
    std::vector<at::Tensor> held;
    for (InstructionSet set : AllInstructionSets()) {
      SetInstructionSet(set);
      const auto matrix = PackedMatrix::Pack({{weight}}, std::nullopt, compute);
      held.push_back(matrix->Dequantized());
      EXPECT_TRUE(at::equal(held.back(), held.front())) << Name(set);
    }
  }
  SetInstructionSet(BestInstructionSet());
}

TEST(PackedMatrixTest, RefusesWhatDoesNotFit) {
  const at::Tensor weight = at::randn({4, 64});
  const at::Tensor q4 = RandomBlocks(WeightType::kQ4_1, 4, 64);
  const auto pack = [](const std::vector<WeightRows>& rows) {
    return PackedMatrix::Pack(rows, std::nullopt, Compute::kFloat32);
  };
  EXPECT_THROW(pack({}), std::invalid_argument);
  EXPECT_THROW(pack({{at::randn({4})}}), std::invalid_argument);
  EXPECT_THROW(pack({{at::randn({0, 64})}}), std::invalid_argument);
  EXPECT_THROW(pack({{at::ones({4, 64}, at::kInt)}}), std::invalid_argument);
  EXPECT_THROW(pack({{weight}, {at::randn({4, 32})}}), std::invalid_argument);
  EXPECT_THROW(pack({{weight, WeightType::kQ4_1}}), std::invalid_argument);
  EXPECT_THROW(pack({{q4, WeightType::kQ4_0}}), std::invalid_argument);
  EXPECT_THROW(PackedMatrix::Pack({{weight}}, at::randn({5}), Compute::kFloat32),
               std::invalid_argument);
  EXPECT_THROW(ComputeByName("float64"), std::invalid_argument);
  EXPECT_THROW(PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kFloat16),
               std::invalid_argument);
  EXPECT_THROW(pack({{weight}})->Multiply(at::randn({3, 63})), c10::Error);
  EXPECT_THROW(pack({{weight}})->Multiply(at::randn({3, 64}, at::kDouble)), c10::Error);
}

}  // namespace
}  // namespace lmfusion
