#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "every_instruction_set.h"
#include "ops/packed_output.h"

namespace lmfusion {
namespace {

// The oracle is ATen in float64, over the weights as the matrix holds them.

class PackedOutput : public EveryInstructionSet {
 protected:
  void SetUp() override {
    EveryInstructionSet::SetUp();
    at::manual_seed(11);
  }
};

INSTANTIATE_TEST_SUITE_P(Every, PackedOutput, InstructionSets(), NameOfSet);

PackedOutputLayer Layer(const at::Tensor& weight, const std::optional<at::Tensor>& bias = {},
                        double scale = 1, double softcap = 0, Compute compute = Compute::kFloat32) {
  return {PackedMatrix::Pack({{weight}}, bias, compute), scale, softcap};
}

at::Tensor Logits64(const at::Tensor& hidden, const PackedOutputLayer& output) {
  at::Tensor logits =
      at::matmul(hidden.to(at::kDouble), output.weight->Dequantized().to(at::kDouble).t());
  const std::vector<float>& bias = output.weight->weight().bias;
  if (!bias.empty()) logits = logits + at::tensor(bias).slice(0, 0, logits.size(1));
  logits = logits * output.scale;
  return output.softcap == 0 ? logits : at::tanh(logits / output.softcap) * output.softcap;
}

double Farthest(const at::Tensor& values, const at::Tensor& exact) {
  return (values.to(at::kDouble) - exact).abs().max().item<double>();
}

TEST_P(PackedOutput, NormalizerIsThatOfAllLogits) {
  for (int64_t vocabulary : {1, 17, 128, 129, 1000, 4099}) {
    const at::Tensor weight = at::randn({vocabulary, 48});
    for (int64_t rows : {1, 2, 15, 37}) {
      const at::Tensor hidden = at::randn({rows, 48});
      const PackedOutputLayer output = Layer(weight);
      EXPECT_LE(Farthest(LogNormalizer(hidden, output), at::logsumexp(Logits64(hidden, output), 1)),
                1e-5)
          << vocabulary << " words, " << rows << " rows";
    }
  }
  EXPECT_EQ(LogNormalizer(at::empty({0, 48}), Layer(at::randn({9, 48}))).numel(), 0);
}

TEST_P(PackedOutput, ScaleBiasAndSoftCapAreApplied) {
  const at::Tensor weight = at::randn({777, 40}), bias = at::randn({777}) * 5;
  const at::Tensor hidden = at::randn({9, 40});
  const at::Tensor rows = at::tensor({0L, 3L, 3L, 8L}), tokens = at::tensor({776L, 0L, 5L, 400L});
  for (const auto& [scale, softcap] : {std::pair<double, double>{0.125, 0}, {1, 30}, {2, 5}}) {
    const PackedOutputLayer output = Layer(weight, bias, scale, softcap);
    const at::Tensor logits = Logits64(hidden, output);
    EXPECT_LE(Farthest(LogNormalizer(hidden, output), at::logsumexp(logits, 1)), 1e-5);
    EXPECT_LE(Farthest(TokenLogits(hidden, rows, tokens, output), logits.index({rows, tokens})),
              1e-5);
  }
}

TEST_P(PackedOutput, MembersAreSummedByThemselves) {
  const at::Tensor weight = at::randn({1111, 40}), hidden = at::randn({15, 40});
  at::Tensor bias = at::zeros({1111});
  // Members far below the others keep their digits.
  for (double lowered : {0.0, -15.0, -40.0, -200.0}) {
    const at::Tensor member = at::rand({1111}) < 0.1;
    bias.masked_fill_(member, lowered);
    const PackedOutputLayer output = Layer(weight, bias);
    const at::Tensor logits = Logits64(hidden, output);
    const auto [all, members] = LogNormalizers(hidden, output, member);
    const at::Tensor only =
        logits.masked_fill(member.logical_not(), -std::numeric_limits<double>::infinity());
    EXPECT_LE(Farthest(all, at::logsumexp(logits, 1)), 1e-5);
    EXPECT_LE((members.to(at::kDouble) - at::logsumexp(only, 1))
                  .abs()
                  .div(1 + std::fabs(lowered))
                  .max()
                  .item<double>(),
              1e-5)
        << lowered;
    EXPECT_TRUE(at::equal(all, LogNormalizer(hidden, output)));
    EXPECT_TRUE(
        at::equal(members, LogNormalizers(hidden, output, member.to(at::kByte) * 255).second));
    bias.zero_();
  }
  const auto [all, none] = LogNormalizers(hidden, Layer(weight), at::zeros({1111}, at::kByte));
  EXPECT_TRUE(none.eq(-std::numeric_limits<float>::infinity()).all().item<bool>());
  const auto everybody = LogNormalizers(hidden, Layer(weight), at::ones({1111}, at::kBool));
  EXPECT_TRUE(at::equal(everybody.first, everybody.second));
  EXPECT_TRUE(at::equal(everybody.first, all));
}

TEST_P(PackedOutput, HoldsWhereExponentialsWouldNot) {
  const at::Tensor weight = at::randn({300, 32}), hidden = at::randn({5, 32});
  for (double offset : {-3000.0, 3000.0}) {
    const PackedOutputLayer output = Layer(weight, at::full({300}, offset));
    // Logits near 3000 are 2e-4 apart in float32.
    EXPECT_LE(Farthest(LogNormalizer(hidden, output), at::logsumexp(Logits64(hidden, output), 1)),
              5e-4);
  }
  at::Tensor bias = at::zeros({300});
  bias.slice(0, 10, 200).fill_(-std::numeric_limits<float>::infinity());
  const PackedOutputLayer output = Layer(weight, bias);
  EXPECT_LE(Farthest(LogNormalizer(hidden, output), at::logsumexp(Logits64(hidden, output), 1)),
            1e-5);
}

TEST_P(PackedOutput, PassesOnNaN) {
  const at::Tensor weight = at::randn({300, 32});
  at::Tensor hidden = at::randn({3, 32});
  hidden[1][7] = std::numeric_limits<float>::quiet_NaN();
  for (Compute compute : {Compute::kFloat32, Compute::kBFloat16, Compute::kInt8}) {
    const PackedOutputLayer output = Layer(weight, std::nullopt, 1, 0, compute);
    const auto [all, members] = LogNormalizers(hidden, output, at::arange(300).eq(299));
    for (const at::Tensor& values : {all, members}) {
      EXPECT_TRUE(at::equal(values.isnan(), at::tensor({0, 1, 0}).to(at::kBool)));
    }
    const at::Tensor logits =
        TokenLogits(hidden, at::tensor({0L, 1L}), at::tensor({5L, 5L}), output);
    EXPECT_TRUE(at::equal(logits.isnan(), at::tensor({0, 1}).to(at::kBool)));
  }
}

// In narrower types the two must see the same logits, or probabilities would not add up to 1.
TEST_P(PackedOutput, TokenLogitsFitTheNormalizerInEveryType) {
  const at::Tensor weight = at::randn({53, 96}), hidden = at::randn({6, 96});
  for (Compute compute : {Compute::kFloat32, Compute::kBFloat16, Compute::kInt8, Compute::kInt4}) {
    const PackedOutputLayer output = Layer(weight, std::nullopt, 1, 0, compute);
    const at::Tensor rows = at::arange(6).repeat_interleave(53);
    const at::Tensor tokens = at::arange(53).repeat({6});
    const at::Tensor logits = TokenLogits(hidden, rows, tokens, output).view({6, 53});
    EXPECT_LE(Farthest(LogNormalizer(hidden, output), at::logsumexp(logits.to(at::kDouble), 1)),
              2e-5)
        << Name(compute);
  }
}

TEST(PackedOutputTest, RefusesWhatDoesNotFit) {
  const PackedOutputLayer output = Layer(at::randn({30, 32}));
  const at::Tensor hidden = at::randn({3, 32});
  EXPECT_THROW(LogNormalizer(at::randn({3, 31}), output), c10::Error);
  EXPECT_THROW(LogNormalizer(hidden, PackedOutputLayer{}), c10::Error);
  EXPECT_THROW(LogNormalizers(hidden, output, at::ones({29}, at::kByte)), c10::Error);
  EXPECT_THROW(LogNormalizers(hidden, output, at::ones({30})), c10::Error);
  EXPECT_THROW(TokenLogits(hidden, at::tensor({3L}), at::tensor({0L}), output), c10::IndexError);
  EXPECT_THROW(TokenLogits(hidden, at::tensor({0L}), at::tensor({30L}), output), c10::IndexError);
  EXPECT_THROW(TokenLogits(hidden, at::tensor({0L, 1L}), at::tensor({0L}), output), c10::Error);
}

}  // namespace
}  // namespace lmfusion
