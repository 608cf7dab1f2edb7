// The host's conversions of narrow numbers against torch's.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/device/numbers.h"

namespace lmfusion {
namespace {

// Every 2^12th float32 (all signs, exponents, subnormals), and the numbers around every value of
// the narrow types.
std::vector<float> Samples() {
  std::vector<float> samples;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 4093) {
    samples.push_back(FloatOf(static_cast<uint32_t>(bits)));
  }
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = ToFloat(Float16{static_cast<uint16_t>(bits)});
    for (int step : {-4096, -1, 0, 1, 4096}) samples.push_back(FloatOf(FloatBits(value) + step));
  }
  return samples;
}

template <typename T, typename Torch>
void Compare(float largest) {
  int compared = 0;
  for (const float x : Samples()) {
    if (std::abs(x) > largest || std::isnan(x)) continue;
    const float got = ToFloat(Convert<T>::From(x)), wanted = static_cast<float>(Torch(x));
    ASSERT_EQ(FloatBits(got), FloatBits(wanted)) << x;
    ++compared;
  }
  EXPECT_GT(compared, 300000);
  EXPECT_TRUE(std::isnan(ToFloat(Convert<T>::From(NAN))));
}

TEST(Numbers, Float16) { Compare<Float16, at::Half>(INFINITY); }
TEST(Numbers, BFloat16) { Compare<BFloat16, at::BFloat16>(INFINITY); }
TEST(Numbers, Float8) {
  Compare<Float8, at::Float8_e4m3fn>(448);
  EXPECT_EQ(ToFloat(Convert<Float8>::From(-1e9f)), -448);
}

}  // namespace
}  // namespace lmfusion
