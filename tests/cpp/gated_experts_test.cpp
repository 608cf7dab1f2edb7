// Mixtures of experts without torch: every instruction set against float64, the same bits whatever
// else is in the batch, and which experts are chosen.
#include "kernels/experts/gated_experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "every_instruction_set.h"
#include "kernels/experts/routing.h"
#include "kernels/threads/parallel.h"
#include "random_matrices.h"

namespace lmfusion {
namespace {

class GatedExpertsTest : public EveryInstructionSet {};
INSTANTIATE_TEST_SUITE_P(Every, GatedExpertsTest, InstructionSets(), NameOfSet);

// What results of size about 1 may be off: see PackedWeightTest; here two products follow another.
double BoundOf(Compute compute) {
  switch (compute) {
    case Compute::kFloat32: return 2e-5;
    case Compute::kBFloat16: return 0.03;
    case Compute::kInt8: return 0.06;
    case Compute::kInt4: return 0.6;
    case Compute::kFloat16: break;  // the CPU has none
  }
  return 0;
}

// A mixture, and its experts packed. Panels and blocks have rests unless sizes say otherwise.
struct Mixture {
  Mixture(int64_t expert_count, bool biased, int64_t hidden_size = 37, int64_t inner_size = 23)
      : count(expert_count), hidden(hidden_size), inner(inner_size) {
    for (int64_t i = 0; i < count; ++i) {
      const auto seed = static_cast<uint32_t>(10 * i);
      gate_up.push_back(Scaled(Normal(2 * inner * hidden, seed + 1), hidden));
      down.push_back(Scaled(Normal(hidden * inner, seed + 2), inner));
      gate_up_bias.push_back(biased ? Normal(2 * inner, seed + 3) : Floats());
      down_bias.push_back(biased ? Normal(hidden, seed + 4) : Floats());
    }
  }

  std::vector<GatedExpert> Packed(Compute compute) const {
    std::vector<GatedExpert> experts;
    for (int64_t i = 0; i < count; ++i) {
      const auto bias = [](const Floats& of) { return of.empty() ? nullptr : of.data(); };
      experts.push_back(
          {PackWeight({MatrixOf(gate_up[i], 2 * inner, hidden)}, bias(gate_up_bias[i]), compute),
           PackWeight({MatrixOf(down[i], hidden, inner)}, bias(down_bias[i]), compute)});
    }
    return experts;
  }

  static double Row(const Floats& weight, const Floats& bias, int64_t row,
                    const std::vector<double>& x) {
    double sum = bias.empty() ? 0 : bias[row];
    for (size_t k = 0; k < x.size(); ++k) sum += double{weight[row * x.size() + k]} * x[k];
    return sum;
  }

  // What expert i makes of x, in float64; the gate is SiLU.
  std::vector<double> Exact(int64_t i, const float* x) const {
    const std::vector<double> input(x, x + hidden);
    std::vector<double> gated(inner), result(hidden);
    for (int64_t k = 0; k < inner; ++k) {
      const double gate = Row(gate_up[i], gate_up_bias[i], k, input);
      const double up = Row(gate_up[i], gate_up_bias[i], inner + k, input);
      gated[k] = gate / (1 + std::exp(-gate)) * up;
    }
    for (int64_t k = 0; k < hidden; ++k) result[k] = Row(down[i], down_bias[i], k, gated);
    return result;
  }

  int64_t count, hidden, inner;
  std::vector<Floats> gate_up, down, gate_up_bias, down_bias;
};

struct Choices {
  std::string name;
  int64_t top_k;
  std::vector<int64_t> experts;

  int64_t tokens() const { return static_cast<int64_t>(experts.size()) / top_k; }
  Floats weights() const { return Normal(static_cast<int64_t>(experts.size()), 8); }
};

// Of five experts.
std::vector<Choices> Corners() {
  std::vector<Choices> corners = {{"one token", 2, {3, 1}},
                                  {"one of one", 1, {4}},
                                  {"one expert has all, two none", 2, {2, 0, 2, 1, 1, 2, 0, 2}},
                                  {"a token takes all", 5, {4, 3, 2, 1, 0}},
                                  {"every token takes all", 5, {}},
                                  {"many tokens", 3, {}},
                                  {"no token", 2, {}}};
  for (int64_t token = 0; token < 9; ++token) {
    for (int64_t k = 0; k < 5; ++k) corners[4].experts.push_back((3 * token + 2 * k) % 5);
  }
  for (int64_t token = 0; token < 131; ++token) {  // more than a tile holds for each
    for (int64_t k = 0; k < 3; ++k) corners[5].experts.push_back((token * token + 4 * k) % 5);
  }
  return corners;
}

// residual: empty for none.
Floats Sums(const std::vector<GatedExpert>& experts, const Choices& choices, const Floats& x,
            const Floats& residual) {
  const Floats weights = choices.weights();
  Floats y(x.size(), 7);
  SumExperts(experts, Activation::kSilu,
             {choices.experts.data(), weights.data(), choices.tokens(), choices.top_k}, x.data(),
             residual.empty() ? nullptr : residual.data(), y.data());
  return y;
}

TEST_P(GatedExpertsTest, SumsAreThoseOfFloat64) {
  for (const bool biased : {false, true}) {
    const Mixture mixture(5, biased);
    for (const Compute compute : kCpuComputes) {
      const std::vector<GatedExpert> experts = mixture.Packed(compute);
      for (const Choices& choices : Corners()) {
        const int64_t hidden = mixture.hidden, size = choices.tokens() * hidden;
        const Floats x = Normal(size, 5), residual = Normal(size, 6), weights = choices.weights();
        const Floats y = Sums(experts, choices, x, residual);
        for (int64_t token = 0; token < choices.tokens(); ++token) {
          std::vector<double> wanted(hidden);
          double magnitude = 1;
          for (int64_t k = 0; k < choices.top_k; ++k) {
            const int64_t i = token * choices.top_k + k;
            const std::vector<double> part =
                mixture.Exact(choices.experts[i], x.data() + token * hidden);
            for (int64_t j = 0; j < hidden; ++j) wanted[j] += weights[i] * part[j];
            magnitude += std::abs(weights[i]);
          }
          for (int64_t j = 0; j < hidden; ++j) {
            ASSERT_NEAR(y[token * hidden + j], residual[token * hidden + j] + wanted[j],
                        BoundOf(compute) * magnitude)
                << choices.name << ", " << Name(compute) << ", biases " << biased;
          }
        }
      }
    }
  }
}

// Wide enough that an expert's panels are several chunks of the loop.
TEST_P(GatedExpertsTest, TokensHaveTheSameBitsWithOthersAndOnAnyNumberOfThreads) {
  const Mixture mixture(5, true, 160, 96);
  for (const Compute compute : kCpuComputes) {
    const std::vector<GatedExpert> experts = mixture.Packed(compute);
    for (const Choices& choices : Corners()) {
      const int64_t hidden = mixture.hidden;
      const Floats x = Normal(choices.tokens() * hidden, 5), weights = choices.weights();
      Floats alone(x.size());
      for (int64_t token = 0; token < choices.tokens(); ++token) {
        const LoopThreads one(1);
        SumExperts(experts, Activation::kSilu,
                   {choices.experts.data() + token * choices.top_k,
                    weights.data() + token * choices.top_k, 1, choices.top_k},
                   x.data() + token * hidden, nullptr, alone.data() + token * hidden);
      }
      for (const int threads : {1, 2, 5}) {
        const LoopThreads some(threads);
        EXPECT_EQ(Sums(experts, choices, x, {}), alone)
            << choices.name << ", " << Name(compute) << ", " << threads << " threads";
      }
    }
  }
}

// Rows of gates and ups, their products, rows of downs, their products, sums: a loop each, however
// many experts have a token. One loop an expert would compute the same, slower.
TEST_P(GatedExpertsTest, AllExpertsOfALayerShareTheirLoops) {
  const LoopThreads some(4);
  const Mixture mixture(60, false, 160, 96);
  for (const Compute compute : kCpuComputes) {
    const std::vector<GatedExpert> experts = mixture.Packed(compute);
    for (const int64_t count : {5, 20, 60}) {  // experts that have tokens
      Choices choices{"", 5, {}};
      for (int64_t i = 0; i < 2400; ++i) choices.experts.push_back(i % count);
      const Floats x = Normal(choices.tokens() * mixture.hidden, 5);
      const uint64_t before = SharedLoops();
      Sums(experts, choices, x, {});
      EXPECT_EQ(SharedLoops() - before, 5u) << count << " experts, " << Name(compute);
    }
  }
}

// A token adds its experts in the order of their numbers, whatever the order of its choices.
TEST_P(GatedExpertsTest, OrderOfChoicesChangesNoBit) {
  const Mixture mixture(5, false);
  const std::vector<GatedExpert> experts = mixture.Packed(Compute::kFloat32);
  const Floats x = Normal(mixture.hidden, 5);
  std::vector<int64_t> order = {0, 1, 2, 3, 4};
  const auto sums = [&] {
    Floats weights, y(mixture.hidden);
    for (const int64_t expert : order) weights.push_back(0.1f + 0.3f * static_cast<float>(expert));
    SumExperts(experts, Activation::kSilu, {order.data(), weights.data(), 1, 5}, x.data(), nullptr,
               y.data());
    return y;
  };
  const Floats wanted = sums();
  while (std::next_permutation(order.begin(), order.end())) ASSERT_EQ(sums(), wanted);
}

TEST(Routing, WeightsAreTheSoftmaxOfAllLogitsOrOfTheChosen) {
  const int64_t tokens = 150, experts = 40;
  Floats logits = Normal(tokens * experts, 1);
  for (float& logit : logits) logit *= 30;
  for (const bool normalized : {false, true}) {
    for (const int64_t top_k : {1, 8, 40}) {
      std::vector<int64_t> numbers(tokens * top_k);
      Floats weights(tokens * top_k);
      ChooseExperts(logits.data(), tokens, experts, top_k, normalized, numbers.data(),
                    weights.data());
      for (int64_t token = 0; token < tokens; ++token) {
        const float* const row = logits.data() + token * experts;
        Floats sorted(row, row + experts);
        std::sort(sorted.rbegin(), sorted.rend());
        double sum = 0;
        for (int64_t i = 0; i < (normalized ? top_k : experts); ++i)
          sum += std::exp(double{sorted[i]});
        for (int64_t k = 0; k < top_k; ++k) {
          const int64_t i = token * top_k + k;
          ASSERT_EQ(row[numbers[i]], sorted[k]);
          ASSERT_NEAR(weights[i], std::exp(double{sorted[k]}) / sum, 1e-6);
        }
      }
    }
  }
}

TEST(Routing, EqualLogitsAreInOrderAndNanComesFirst) {
  const float nan = std::nanf("");
  const Floats logits = {2, 5, 5, 2, 5, 0, 7, nan, 1, nan};
  std::vector<int64_t> numbers(6);
  Floats weights(6);
  ChooseExperts(logits.data(), 2, 5, 3, true, numbers.data(), weights.data());
  EXPECT_EQ(numbers, (std::vector<int64_t>{1, 2, 4, 2, 4, 1}));
  for (int64_t k = 0; k < 3; ++k) {
    EXPECT_FLOAT_EQ(weights[k], 1.0f / 3);
    EXPECT_TRUE(std::isnan(weights[3 + k]));
  }
}

}  // namespace
}  // namespace lmfusion
