// The kernels of the output layer and of narrow weights, run on the host, against float64.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "ops/narrow_weights.h"
#include "ops/output_kernel.h"

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
    SerialBlock<typename Body::State, kOutputThreads> block;
    Body::Run(block, arguments, row, shared);
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

TEST(NarrowWeight, IntegersAreWithinHalfAStep) {
  const at::Tensor weight = at::randn({6, 96});
  for (const auto& [compute, largest, group] :
       {std::tuple<const char*, double, int64_t>{"int8", 127, 96}, {"int4", 7, kInt4Group}}) {
    const NarrowWeight narrow = Narrowed(weight, compute);
    ASSERT_TRUE(narrow.scales);
    EXPECT_EQ(narrow.values.nbytes(), static_cast<size_t>(weight.numel() * (largest > 7 ? 2 : 1) / 2));
    const at::Tensor back = Widened(narrow.values, narrow.scales).to(at::kFloat);
    const at::Tensor step =
        weight.reshape({6, -1, group}).abs().amax(2, true).div(largest).expand({6, -1, group});
    // Half a step, and the rounding of the result to bfloat16.
    const at::Tensor allowed = step.reshape({6, 96}) * 0.5 + back.abs() / 256 + 1e-6;
    EXPECT_TRUE(((back - weight).abs() <= allowed).all().item<bool>()) << compute;
  }
  EXPECT_EQ(Narrowed(at::randn({4, 50}), "int4").values.scalar_type(), at::kBFloat16);
}

TEST(NarrowWeight, LinearKeepsShapesAndAddsTheBias) {
  const at::Tensor x = at::randn({2, 5, 64}), weight = at::randn({7, 64}), bias = at::randn({7});
  const NarrowWeight narrow = Narrowed(weight, "bfloat16");
  const at::Tensor y = NarrowLinear(x, narrow.values, narrow.scales, bias);
  const at::Tensor wanted = at::linear(x.to(at::kBFloat16).to(at::kDouble),
                                       weight.to(at::kBFloat16).to(at::kDouble),
                                       bias.to(at::kDouble));
  EXPECT_EQ(y.sizes(), wanted.sizes());
  EXPECT_EQ(y.scalar_type(), at::kFloat);
  EXPECT_LT((y - wanted).abs().max().item<double>(), 1e-4);
}

}  // namespace
}  // namespace lmfusion
