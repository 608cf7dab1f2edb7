// Products by the tile registers of AMX, in registers of software on every CPU with AVX2, and in
// those of a CPU that has them: against plain loops over what panels and activations are defined to
// mean, to the bit where whole numbers are multiplied, and against the kernels of AVX-512.
#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "every_instruction_set.h"
#include "kernels/device/numbers.h"
#include "kernels/linear/panel_products.h"
#include "kernels/linear/tile_kernels.h"
#include "random_matrices.h"
#include "software_tiles.h"

namespace lmfusion {
namespace software_tiles {
extern const TileKernels kTileKernels;
}
namespace {

constexpr Compute kComputes[] = {Compute::kBFloat16, Compute::kInt8, Compute::kInt4};

class TileKernelsTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    SetInstructionSet(BestInstructionSet());
    if (GetParam() == "registers") {
      tiles_ = CurrentTileKernels();
      if (tiles_ == nullptr) GTEST_SKIP() << "this CPU has no tile registers";
    } else {
      tiles_ = &software_tiles::kTileKernels;
      if (!Has(FeaturesOfThisCpu(), InstructionSet::kAvx2)) GTEST_SKIP() << "compiled for AVX2";
    }
  }
  void TearDown() override { SetInstructionSet(BestInstructionSet()); }

  const TileKernels* tiles_ = nullptr;
};
INSTANTIATE_TEST_SUITE_P(In, TileKernelsTest, testing::Values("software", "registers"),
                         [](const auto& info) { return info.param; });

// x times the weight, three panels at a time.
Floats Products(const PackedWeight& weight, const Floats& x, const TileKernels* tiles) {
  const int64_t rows = static_cast<int64_t>(x.size()) / weight.in;
  const PanelProducts products(weight, x.data(), rows, tiles);
  Floats y(rows * weight.out, -1.0f);
  const int64_t panels = PanelsOf(weight.out);
  for (int64_t first = 0; first < panels; first += 3) {
    products.Compute(first, std::min<int64_t>(3, panels - first), y.data() + first * kPanelOutputs,
                     weight.out);
  }
  return y;
}

PackedWeight Packed(int64_t out, int64_t in, Compute compute) {
  const Floats weights = Normal(out * in, 1), bias = Normal(out, 2);
  return PackWeight({MatrixOf(weights, out, in)}, bias.data(), compute);
}

void ExpectSameBits(const Floats& y, const Floats& expected, const std::string& what) {
  ASSERT_EQ(y.size(), expected.size());
  for (size_t i = 0; i < y.size(); ++i) {
    if (std::isnan(y[i]) && std::isnan(expected[i])) continue;
    ASSERT_EQ(FloatBits(y[i]), FloatBits(expected[i]))
        << what << ", number " << i << ": " << y[i] << ", " << expected[i];
  }
}

// A block of activations, as Note [Activations] defines it.
struct ByteBlock {
  int8_t bytes[kBlockInputs] = {};
  float scale = std::numeric_limits<float>::quiet_NaN();
  float scaled_sum = std::numeric_limits<float>::quiet_NaN();
};
ByteBlock BytesOf(const float* x, int64_t count) {
  ByteBlock block;
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(x[i])) return block;
    largest = std::max(largest, std::abs(x[i]));
  }
  int sum = 0;
  for (int64_t i = 0; i < count && largest >= 1e-30f; ++i) {
    block.bytes[i] = static_cast<int8_t>(std::nearbyint(x[i] * (127 / largest)));
    sum += block.bytes[i];
  }
  block.scale = largest * (1.0f / 127);
  block.scaled_sum = block.scale * static_cast<float>(sum);
  return block;
}

// An output's part of a panel, as Note [Panels] defines it.
struct PanelLane {
  const PackedWeight& weight;
  const uint8_t* panel;
  int64_t lane;

  PanelLane(const PackedWeight& of, int64_t output)
      : weight(of),
        panel(of.panels.get() + output / kPanelOutputs * of.panel_bytes()),
        lane(output % kPanelOutputs) {}
  int Byte(int64_t block, int64_t input) const {  // 128 added
    return panel[block * 512 + input / 4 * 64 + lane * 4 + input % 4];
  }
  int Nibble(int64_t block, int64_t input) const {
    const int byte = panel[block * 320 + 64 + input / 8 * 64 + lane * 4 + input % 4];
    return input % 8 < 4 ? byte & 15 : byte >> 4;
  }
  float Half(int64_t at) const {
    uint16_t bits;
    std::memcpy(&bits, panel + at + 2 * lane, sizeof(bits));
    return ToFloat(Float16{bits});
  }
  float Scale() const {
    float scale;
    std::memcpy(&scale, panel + BlocksOf(weight.in) * 512 + 4 * lane, sizeof(scale));
    return scale;
  }
};

// A product of bytes with its sums in the order that kernels have them, and in float64.
struct ByteProduct {
  float in_order;
  double exact, magnitude;
};
ByteProduct ProductOfBytes(const PackedWeight& weight, int64_t output, const float* x) {
  const PanelLane lane(weight, output);
  const bool nibbles = weight.format == PanelFormat::kQ4;
  const int64_t blocks = BlocksOf(weight.in);
  std::vector<ByteBlock> inputs(blocks);
  float sum = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    inputs[b] = BytesOf(x + b * kBlockInputs, std::min(kBlockInputs, weight.in - b * kBlockInputs));
    if (!nibbles) sum -= 128 * inputs[b].scaled_sum;
  }
  double exact = weight.bias[output], magnitude = std::abs(exact);
  for (int64_t b = 0; b < blocks; ++b) {
    const float scale = nibbles ? lane.Half(b * 320) : lane.Scale();
    const float minimum = nibbles ? lane.Half(b * 320 + 32) : -128 * scale;
    int dot = 0;
    for (int64_t i = 0; i < kBlockInputs; ++i) {
      const int q = nibbles ? lane.Nibble(b, i) : lane.Byte(b, i);
      dot += q * inputs[b].bytes[i];
      const double input = double{inputs[b].scale} * inputs[b].bytes[i];
      exact += (double{scale} * q + minimum) * input;
      magnitude += std::abs(input) * (double{scale} * q + std::abs(minimum));
    }
    if (nibbles) {
      sum = std::fma(static_cast<float>(dot) * inputs[b].scale, scale, sum);
      sum = std::fma(minimum, inputs[b].scaled_sum, sum);
    } else {
      sum = std::fma(static_cast<float>(dot), inputs[b].scale, sum);
    }
  }
  if (!nibbles) sum *= lane.Scale();
  return {sum + weight.bias[output], exact, magnitude};
}

constexpr double kFloatBound = 8.0 / (1 << 24);
const std::pair<int64_t, int64_t> kShapes[] = {{1, 1},    {16, 32},  {37, 65},
                                               {129, 96}, {20, 256}, {100, 577}};
const int64_t kRows[] = {1, 2, 3, 4, 5, 15, 16, 17, 24, 31, 32, 33, 40};

TEST_P(TileKernelsTest, BytesAreThoseOfPlainLoopsToTheBit) {
  for (const auto& [out, in] : kShapes) {
    for (const Compute compute : {Compute::kInt8, Compute::kInt4}) {
      const PackedWeight weight = Packed(out, in, compute);
      for (const int64_t rows : kRows) {
        if (rows < tiles_->least_int8_tokens) continue;
        const Floats x = Normal(rows * in, 3), y = Products(weight, x, tiles_);
        for (int64_t i = 0; i < rows * out; ++i) {
          const ByteProduct product = ProductOfBytes(weight, i % out, &x[i / out * in]);
          ASSERT_EQ(y[i], product.in_order)
              << Name(compute) << ' ' << out << " x " << in << ", row " << i / out << " of " << rows
              << ", output " << i % out;
          ASSERT_NEAR(y[i], product.exact, kFloatBound * product.magnitude);
        }
      }
    }
  }
}

TEST_P(TileKernelsTest, BytesAreThoseOfAvx512ToTheBit) {
  if (!Has(FeaturesOfThisCpu(), InstructionSet::kAvx512)) GTEST_SKIP() << "without AVX-512";
  SetInstructionSet(InstructionSet::kAvx512);
  for (const auto& [out, in] : kShapes) {
    for (const Compute compute : {Compute::kInt8, Compute::kInt4}) {
      const PackedWeight weight = Packed(out, in, compute);
      for (int64_t rows = 1; rows <= 40; ++rows) {
        const Floats x = Normal(rows * in, 3);
        ExpectSameBits(Products(weight, x, tiles_), Products(weight, x, nullptr),
                       std::to_string(rows) + " rows as " + Name(compute));
      }
    }
  }
}

float Rounded(float x) { return ToFloat(Convert<BFloat16>::From(x)); }

TEST_P(TileKernelsTest, BFloat16IsThatOfFloat64) {
  for (const auto& [out, in] : kShapes) {
    const Floats weights = Normal(out * in, 1);
    const PackedWeight packed = Packed(out, in, Compute::kBFloat16);
    for (const int64_t rows : kRows) {
      const Floats x = Normal(rows * in, 3), y = Products(packed, x, tiles_);
      for (int64_t i = 0; i < rows * out; ++i) {
        double sum = packed.bias[i % out], magnitude = std::abs(sum);
        for (int64_t k = 0; k < in; ++k) {
          const double product =
              double{Rounded(x[i / out * in + k])} * Rounded(weights[i % out * in + k]);
          sum += product;
          magnitude += std::abs(product);
        }
        ASSERT_NEAR(y[i], sum, kFloatBound * magnitude) << out << " x " << in << ", row " << i / out
                                                        << " of " << rows << ", output " << i % out;
      }
    }
  }
}

TEST_P(TileKernelsTest, ARowHasTheSameBitsAmongAnyOthers) {
  const int64_t out = 100, in = 577, all = 40;
  const Floats x = Normal(all * in, 3);
  for (const Compute compute : kComputes) {
    const PackedWeight weight = Packed(out, in, compute);
    const Floats together = Products(weight, x, tiles_);
    for (int64_t rows = 1; rows < all; ++rows) {
      // Fewer are multiplied by other instructions, which agree on CPUs with AVX-512.
      const bool others = compute != Compute::kBFloat16 && rows < tiles_->least_int8_tokens;
      if (others && !Has(FeaturesOfThisCpu(), InstructionSet::kAvx512)) continue;
      const int64_t first = all - rows;
      ExpectSameBits(Products(weight, Floats(x.begin() + first * in, x.end()), tiles_),
                     Floats(together.begin() + first * out, together.end()),
                     std::to_string(rows) + " rows as " + Name(compute));
    }
  }
}

TEST_P(TileKernelsTest, SumsOfTheLargestBytesFit) {
  const int64_t out = 17, in = 96, rows = 20;
  for (const float sign : {1.0f, -1.0f}) {
    const Floats weights(out * in, sign), x(rows * in, 1.0f);
    for (const Compute compute : kComputes) {
      const PackedWeight packed = PackWeight({MatrixOf(weights, out, in)}, nullptr, compute);
      for (const float y : Products(packed, x, tiles_)) ASSERT_NEAR(y, sign * in, 0.02) << sign;
    }
  }
}

TEST_P(TileKernelsTest, WhatIsNotFiniteStaysInItsRow) {
  const int64_t out = 37, in = 65, rows = 20;
  const Floats finite = Normal(rows * in, 3);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    for (const int64_t bad_row : {2, 18}) {
      Floats x = finite;
      x[bad_row * in + 40] = bad;
      for (const Compute compute : kComputes) {
        const PackedWeight weight = Packed(out, in, compute);
        Floats expected = Products(weight, finite, tiles_);
        const Floats y = Products(weight, x, tiles_);
        for (int64_t i = 0; i < out; ++i) {
          float& of_row = expected[bad_row * out + i];
          of_row = y[bad_row * out + i];
          EXPECT_TRUE(compute == Compute::kBFloat16 ? !std::isfinite(of_row) : std::isnan(of_row));
        }
        ExpectSameBits(y, expected, Name(compute));
      }
    }
  }
}

// As products of AVX-512 BF16 have it.
TEST_P(TileKernelsTest, BFloat16TakesDenormalsForZero) {
  const int64_t in = 40;
  Floats weights(in, 1e30f);
  const PackedWeight packed = PackWeight({MatrixOf(weights, 1, in)}, nullptr, Compute::kBFloat16);
  const Floats denormal(in, 1e-39f), normal(in, 2e-38f);
  EXPECT_EQ(Products(packed, denormal, tiles_), Floats{0.0f});
  EXPECT_NEAR(Products(packed, normal, tiles_)[0], 40 * 2e-8, 40 * 2e-8 / 125);
}

// Weights that fit bfloat16 are held as it, and multiplied as float32.
TEST_P(TileKernelsTest, AreNotForFloat32) {
  const Floats x = Normal(20 * 64, 3);
  for (const Floats& weights : {Floats(37 * 64, 0.5f), Normal(37 * 64, 1)}) {
    const PackedWeight weight = PackWeight({MatrixOf(weights, 37, 64)}, nullptr, Compute::kFloat32);
    ExpectSameBits(Products(weight, x, tiles_), Products(weight, x, nullptr), Name(weight.format));
  }
}

// Sums in the processor's own order among them.
TEST(TileRegisters, GiveWhatSoftwareGivesToTheBit) {
  const TileKernels* const tiles = CurrentTileKernels();
  if (tiles == nullptr) GTEST_SKIP() << "this CPU has no tile registers";
  for (const Compute compute : kComputes) {
    const PackedWeight weight = Packed(100, 577, compute);
    for (const int64_t rows : kRows) {
      Floats x = Normal(rows * 577, 3);
      x[0] = 1e-39f;  // some that are no normal numbers
      x[5] = -std::numeric_limits<float>::denorm_min();
      x[70] = FLT_MIN;
      ExpectSameBits(Products(weight, x, tiles), Products(weight, x, &software_tiles::kTileKernels),
                     std::to_string(rows) + " rows as " + Name(compute));
    }
  }
}

// A block at a time, in any order.
TEST(SoftwareTiles, ActivationsArePackedInPieces) {
  if (!Has(FeaturesOfThisCpu(), InstructionSet::kAvx2)) GTEST_SKIP() << "compiled for AVX2";
  constexpr int64_t kBlocks = 5, kOut = 50;
  for (const Compute compute : kComputes) {
    const PackedWeight weight = Packed(kOut, kBlocks * kBlockInputs, compute);
    for (const int64_t rows : kRows) {
      Floats x = Normal(rows * weight.in, 3), pieces(rows * kOut), whole(rows * kOut);
      PanelProducts(weight, x.data(), rows, &software_tiles::kTileKernels).ComputeAll(whole.data());
      PanelProducts products(weight, rows, &software_tiles::kTileKernels);
      for (const int64_t block : {3, 0, 4, 2, 1}) {
        products.PackBlock(block, x.data() + block * kBlockInputs, weight.in);
      }
      products.FinishPacking();
      products.ComputeAll(pieces.data());
      ExpectSameBits(pieces, whole, std::to_string(rows) + " rows as " + Name(compute));
    }
  }
}

#if defined(LMFUSION_AMX)
// Packing takes no tile registers.
TEST(SoftwareTiles, ArePackedForAsRegistersAre) {
  if (!Has(FeaturesOfThisCpu(), InstructionSet::kAvx512BFloat16)) {
    GTEST_SKIP() << "without AVX-512 BF16";
  }
  const float infinity = std::numeric_limits<float>::infinity();
  for (const int64_t in : {1, 65, 256}) {
    for (const int tokens : {1, 17, kMostTileTokens}) {
      Floats x = Normal(tokens * in, 3);
      const float odd[] = {1e-39f, -1e-39f, 1.18e-38f, infinity, -infinity, std::nanf(""), 3.4e38f};
      for (size_t i = 0; i < std::size(odd) && in > 1; ++i) x[x.size() - 7 * i - 1] = odd[i];
      const int64_t words = std::max(TileInt8Words(BlocksOf(in)), BlocksOf(in) * 16);
      const auto packed = [&](const ActivationPacker& packer) {
        const int64_t blocks = BlocksOf(in);
        std::vector<uint32_t> to(tokens * words);
        packer.pack({x.data(), in, in, 0, blocks, tokens, to.data()});
        if (packer.finish != nullptr) packer.finish(to.data(), blocks, tokens);
        return to;
      };
      EXPECT_EQ(packed(amx::kTileKernels.bfloat16_activations),
                packed(software_tiles::kTileKernels.bfloat16_activations));
      EXPECT_EQ(packed(amx::kTileKernels.int8_activations),
                packed(software_tiles::kTileKernels.int8_activations));
    }
  }
}
#endif

// A tile that is loaded serves several products, and what a kernel sets it releases.
TEST(SoftwareTiles, LoadsServeSeveralProducts) {
  if (!Has(FeaturesOfThisCpu(), InstructionSet::kAvx2)) GTEST_SKIP() << "compiled for AVX2";
  constexpr int64_t kPanels = 8, kBlocks = 10;
  const auto counts_of = [&](int64_t rows, Compute compute) {
    const PackedWeight weight = Packed(kPanels * kPanelOutputs, kBlocks * kBlockInputs, compute);
    const Floats x = Normal(rows * weight.in, 3);
    const PanelProducts products(weight, x.data(), rows, &software_tiles::kTileKernels);
    Floats y(rows * weight.out);
    software_tiles::counts = {};
    products.Compute(0, kPanels, y.data(), weight.out);
    return software_tiles::counts;
  };
  for (const Compute compute : kComputes) {
    const bool bytes = compute != Compute::kBFloat16;
    for (const int64_t rows : {4, 16, 17, 32, 64}) {
      const int64_t halves = (rows + 15) / 16;
      const software_tiles::TileCounts counts = counts_of(rows, compute);
      EXPECT_EQ(counts.products, halves * kPanels * kBlocks) << rows;
      EXPECT_EQ(counts.stores, bytes ? counts.products : halves * kPanels) << rows;
      // One tile of inputs with four of weights, or two with two.
      EXPECT_EQ(counts.loads, halves == 1 ? counts.products * 5 / 4 : counts.products) << rows;
      EXPECT_EQ(counts.shapes, (rows + 31) / 32) << rows;
      EXPECT_EQ(counts.releases, counts.shapes) << rows;
    }
  }
}

}  // namespace
}  // namespace lmfusion
