// The kernels of the output layer and of narrow weights, run on the host, against float64.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/output/output_kernel.h"
#include "ops/narrow_weights.h"
#include "ops/packed_linear.h"

namespace lmfusion {
namespace {

std::vector<float> Random(int64_t size, unsigned seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(size);
  for (float& value : values) value = normal(random);
  return values;
}

template <typename Body, typename Arguments>
void RunRows(const Arguments& arguments, int64_t rows) {
  for (int64_t row = 0; row < rows; ++row) {
    typename Body::Shared shared;
    SerialThreads<typename Body::State, kOutputThreads> threads;
    Body::Run(threads, arguments, row, shared);
  }
}

// Logits of [rows, vocabulary] products, tile by tile: ([rows] all, [rows] subset).
std::vector<float> LogSums(const std::vector<float>& logits, int64_t rows, int64_t vocabulary,
                           int64_t words, const OutputFormula& formula, const bool* subset) {
  std::vector<LogSum> sums(2 * rows);
  std::vector<float> results(2 * rows);
  for (int64_t begin = 0; begin < vocabulary; begin += words) {
    const int64_t end = std::min(begin + words, vocabulary);
    std::vector<float> products;
    for (int64_t row = 0; row < rows; ++row) {
      products.insert(products.end(), logits.begin() + row * vocabulary + begin,
                      logits.begin() + row * vocabulary + end);
    }
    VocabularyTile tile;
    tile.products = products.data();
    tile.words = end - begin;
    tile.first_word = begin;
    tile.formula = formula;
    tile.subset = subset;
    tile.sums = sums.data();
    tile.rows = rows;
    tile.results = end == vocabulary ? results.data() : nullptr;
    RunRows<AddTileBody>(tile, rows);
  }
  return results;
}

TEST(AddTile, SumsInAnyTilesAreThoseOfFloat64) {
  constexpr int64_t kRows = 3, kVocabulary = 1500;
  const std::vector<float> logits = Random(kRows * kVocabulary, 1, 20);
  const std::vector<float> bias = Random(kVocabulary, 2, 1);
  std::vector<char> begins(kVocabulary);
  for (int64_t i = 0; i < kVocabulary; ++i) begins[i] = i % 7 == 3;
  OutputFormula formula;
  formula.bias = bias.data();
  formula.scale = 0.7f;
  formula.softcap = 15;
  for (const int64_t words : {100, 256, 257, 1500, 5000}) {
    const std::vector<float> results = LogSums(logits, kRows, kVocabulary, words, formula,
                                               reinterpret_cast<const bool*>(begins.data()));
    for (int64_t row = 0; row < kRows; ++row) {
      double all = 0, some = 0;
      for (int64_t i = 0; i < kVocabulary; ++i) {
        const double logit =
            15 * std::tanh(0.7 * (double{logits[row * kVocabulary + i]} + bias[i]) / 15);
        all += std::exp(logit);
        if (begins[i]) some += std::exp(logit);
      }
      EXPECT_NEAR(results[row], std::log(all), 2e-5) << words;
      EXPECT_NEAR(results[kRows + row], std::log(some), 2e-5) << words;
    }
  }
}

TEST(AddTile, LargeLogitsDoNotOverflowAndNanIsSeen) {
  std::vector<float> logits = {3000, 2999, -3000, 0};
  EXPECT_NEAR(LogSums(logits, 1, 4, 2, {}, nullptr)[0], 3000 + std::log1p(std::exp(-1.0)), 1e-3);
  for (int i = 0; i < 4; ++i) {
    std::vector<float> broken = logits;
    broken[i] = NAN;
    EXPECT_TRUE(std::isnan(LogSums(broken, 1, 4, 2, {}, nullptr)[0])) << i;
  }
}

TEST(RowLogits, AreDotProductsInEveryType) {
  constexpr int64_t kRows = 4, kSize = 300, kVocabulary = 9;
  const std::vector<float> hidden = Random(kRows * kSize, 3, 1);
  const std::vector<float> weight = Random(kVocabulary * kSize, 4, 0.1f);
  const std::vector<float> bias = Random(kVocabulary, 5, 1);
  const std::vector<int64_t> tokens = {8, 0, 3, 3};
  for (const auto type : {NumberType::kFloat32, NumberType::kFloat16, NumberType::kBFloat16}) {
    std::vector<uint8_t> h(hidden.size() * 4), w(weight.size() * 4);
    for (size_t i = 0; i < hidden.size(); ++i) StoreNumber(h.data(), type, i, hidden[i]);
    for (size_t i = 0; i < weight.size(); ++i) StoreNumber(w.data(), type, i, weight[i]);
    std::vector<float> results(kRows);
    RowLogits rows;
    rows.hidden = h.data();
    rows.weight = w.data();
    rows.hidden_type = rows.weight_type = type;
    rows.tokens = tokens.data();
    rows.formula.bias = bias.data();
    rows.formula.scale = 2;
    rows.results = results.data();
    rows.rows = kRows;
    rows.size = kSize;
    RunRows<RowLogitBody>(rows, kRows);
    for (int64_t row = 0; row < kRows; ++row) {
      double wanted = bias[tokens[row]];
      for (int64_t i = 0; i < kSize; ++i) {
        wanted += double{LoadNumber(h.data(), type, row * kSize + i)} *
                  LoadNumber(w.data(), type, tokens[row] * kSize + i);
      }
      EXPECT_NEAR(results[row], 2 * wanted, 1e-4);
    }
  }
}

at::Tensor WidenedAgain(const NarrowWeight& narrow) {
  const at::Tensor wide = Widened(narrow.values, narrow.scales).to(at::kFloat);
  return narrow.values.scalar_type() == at::kChar ? wide * narrow.scales->unsqueeze(1) : wide;
}

TEST(NarrowWeight, BytesAreWithinHalfAStepOfTheirRow) {
  for (const int64_t columns : {96, 50}) {
    const at::Tensor weight = at::randn({6, columns});
    const NarrowWeight narrow = Narrowed({weight}, Compute::kInt8);
    EXPECT_EQ(narrow.bytes(), weight.numel() + 4 * 6);
    const at::Tensor step = weight.abs().amax(1, true) / 127;
    EXPECT_TRUE(((WidenedAgain(narrow) - weight).abs() <= step * 0.5001).all().item<bool>());
  }
  const at::Tensor nothing = at::zeros({2, 32});
  EXPECT_TRUE(at::equal(WidenedAgain(Narrowed({nothing}, Compute::kInt8)), nothing));
  EXPECT_THROW(Narrowed({at::full({1, 32}, NAN)}, Compute::kInt8), std::invalid_argument);
}

TEST(NarrowWeight, FourBitsAreWithinHalfAStepOfTheirBlock) {
  const at::Tensor weight = at::randn({6, 96});
  const at::Tensor blocks = weight.reshape({6, 3, 32});
  const NarrowWeight narrow = Narrowed({weight}, Compute::kInt4);
  EXPECT_EQ(narrow.bytes(), weight.numel() / 32 * 20);
  const at::Tensor off = (WidenedAgain(narrow) - weight).abs().reshape({6, 3, 32});
  // Float16 scales, and the rounding of the result to bfloat16.
  const at::Tensor rounding = blocks.abs().amax(2, true) / 200;
  // A narrower range may serve the block better than half steps everywhere.
  const at::Tensor step = (blocks.amax(2, true) - blocks.amin(2, true)) / 15;
  EXPECT_TRUE((off.square().mean(2, true).sqrt() <= step * 0.5 + rounding).all().item<bool>());
  EXPECT_TRUE((off <= step * 2.5 + rounding).all().item<bool>());
  EXPECT_EQ(Narrowed({at::randn({4, 50})}, Compute::kInt4).values.scalar_type(), at::kBFloat16);
  EXPECT_THROW(Narrowed({at::full({1, 32}, NAN)}, Compute::kInt4), std::invalid_argument);
}

// The same weights as the CPU's, to the bit.
TEST(NarrowWeight, BytesAreThoseOfTheCpu) {
  const at::Tensor weight = at::randn({21, 75});
  const auto packed = PackedMatrix::Pack({{weight}}, std::nullopt, Compute::kInt8);
  EXPECT_TRUE(at::equal(WidenedAgain(Narrowed({weight}, Compute::kInt8)), packed->Dequantized()));
}

// Blocks written by hand: scale 0.5, minimum -3 (Q4_1); q of input i is i % 16.
TEST(NarrowWeight, TilesOfFilesStayWhatTheyAreWhereTheyCan) {
  constexpr uint8_t kHalf[2] = {0x00, 0x38}, kMinusThree[2] = {0x00, 0xc2};  // float16
  std::vector<uint8_t> q4_0(kHalf, kHalf + 2), q4_1(kHalf, kHalf + 2), q8_0(kHalf, kHalf + 2);
  q4_1.insert(q4_1.end(), kMinusThree, kMinusThree + 2);
  for (int i = 0; i < 16; ++i) {  // inputs i and i + 16
    q4_0.push_back(static_cast<uint8_t>(i | i << 4));
    q4_1.push_back(static_cast<uint8_t>(i | i << 4));
  }
  for (int i = 0; i < 32; ++i) q8_0.push_back(static_cast<uint8_t>(i - 16));
  const at::Tensor q = at::arange(32, at::kFloat).remainder(16);
  struct Case {
    WeightType type;
    std::vector<uint8_t>* block;
    at::Tensor weights;
    int64_t bytes;
  };
  for (const Case& c :
       {Case{WeightType::kQ4_0, &q4_0, 0.5 * (q - 8), 6 * 20},
        Case{WeightType::kQ4_1, &q4_1, 0.5 * q - 3, 6 * 20},
        Case{WeightType::kQ8_0, &q8_0, 0.5 * (at::arange(32) - 16), 3 * 64 + 3 * 4}}) {
    const at::Tensor one = at::from_blob(c.block->data(), {1, int64_t(c.block->size())}, at::kByte);
    const at::Tensor rows = one.repeat({3, 2});
    const at::Tensor wanted = c.weights.to(at::kFloat).repeat({3, 2});
    const NarrowWeight narrow = Narrowed({rows, c.type}, Compute::kInt4);
    EXPECT_EQ(narrow.bytes(), c.bytes);
    if (c.type == WeightType::kQ8_0) {  // 8 bits with a scale a row
      EXPECT_LT((WidenedAgain(narrow) - wanted).abs().max().item<float>(), 8.0 / 127 / 2 * 1.01);
    } else {
      EXPECT_TRUE(at::equal(WidenedAgain(narrow), wanted));  // short enough for bfloat16
    }
    EXPECT_EQ(Narrowed({rows, c.type}, Compute::kInt8).bytes(), 3 * 64 + 3 * 4);
    for (const Compute compute : {Compute::kFloat32, Compute::kBFloat16, Compute::kFloat16}) {
      EXPECT_TRUE(at::equal(WidenedAgain(Narrowed({rows, c.type}, compute)), wanted))
          << Name(compute);
    }
  }
}

TEST(NarrowWeight, ProductsWithBytesAreScaledAfterTheyAreSummed) {
  const at::Tensor x = at::randn({5, 40}), weight = at::randn({7, 40});
  const NarrowWeight narrow = Narrowed({weight}, Compute::kInt8);
  const at::Tensor y = NarrowLinear(x, narrow.values, narrow.scales, std::nullopt);
  const at::Tensor wanted =
      at::linear(x.to(at::kBFloat16).to(at::kDouble), WidenedAgain(narrow).to(at::kDouble));
  EXPECT_LT((y - wanted).abs().max().item<double>(), 1e-4);
}

TEST(NarrowWeight, LinearKeepsShapesAndAddsTheBias) {
  const at::Tensor x = at::randn({2, 5, 64}), weight = at::randn({7, 64}), bias = at::randn({7});
  const NarrowWeight narrow = Narrowed({weight}, Compute::kBFloat16);
  const at::Tensor y = NarrowLinear(x, narrow.values, narrow.scales, bias);
  const at::Tensor wanted =
      at::linear(x.to(at::kBFloat16).to(at::kDouble), weight.to(at::kBFloat16).to(at::kDouble),
                 bias.to(at::kDouble));
  EXPECT_EQ(y.sizes(), wanted.sizes());
  EXPECT_EQ(y.scalar_type(), at::kFloat);
  EXPECT_LT((y - wanted).abs().max().item<double>(), 1e-4);
}

}  // namespace
}  // namespace lmfusion
