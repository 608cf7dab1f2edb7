// Plans as one buffer.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "engine/staged_plan.h"

namespace lmfusion {
namespace {

// Two branches below a computed trunk.
BatchPlan SamplePlan() {
  BatchPlan plan;
  plan.tokens = {7, 8, 9};
  plan.positions = {2, 3, 2};
  plan.slots = {10, 11, 12};
  plan.segments = {{0, 2, 0, 3, 0}, {2, 4, 0, 2, 2}, {4, 5, 2, 3, 2}};
  plan.segment_slots = {4, 5, 10, 11, 12};
  return plan;
}

template <typename T>
std::vector<T> Values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return {flat.data_ptr<T>(), flat.data_ptr<T>() + flat.numel()};
}

TEST(StagedPlan, ViewsHoldThePlanAndItsPadding) {
  QueryTileOptions options;
  options.wanted_tiles = 0;
  const StagedPlan staged = StagePlan(SamplePlan(), options, 5, /*pad_tiles=*/true, 99, false);
  const PlanTensors views = ViewsOf(staged.buffer, staged.layout);
  EXPECT_EQ(Values<int64_t>(views.tokens), (std::vector<int64_t>{7, 8, 9, 0, 0}));
  EXPECT_EQ(Values<int64_t>(views.positions), (std::vector<int64_t>{2, 3, 2, 0, 0}));
  EXPECT_EQ(Values<int32_t>(views.slots), (std::vector<int32_t>{10, 11, 12, 99, 99}));
  EXPECT_EQ(views.tiles.size(0), PaddedSize(1));
  EXPECT_EQ(Values<int32_t>(views.tiles[0]), (std::vector<int32_t>{0, 5, 0, 5, -1}));
  EXPECT_EQ(Values<int32_t>(views.tiles[1]), (std::vector<int32_t>{0, 0, 0, 0, -1}));
  EXPECT_EQ(Values<int32_t>(views.keys),
            (std::vector<int32_t>{4, 0, 0, 3, 5, 1, 0, 3, 10, 2, 0, 2, 11, 3, 0, 2, 12, 2, 2, 3}));
}

TEST(StagedPlan, PartsAreAlignedAndKeysComeLast) {
  for (int64_t tokens : {1, 3, 16, 511}) {
    for (int64_t tiles : {1, 7, 24}) {
      PlanLayout layout, roomy;
      layout.tokens = roomy.tokens = tokens;
      layout.tiles = roomy.tiles = tiles;
      layout.keys = 5;
      roomy.keys = 5000;
      for (const int64_t at :
           {layout.positions_at(), layout.slots_at(), layout.tiles_at(), layout.keys_at()}) {
        EXPECT_EQ(at % 4, 0);
      }
      EXPECT_GE(layout.positions_at(), 2 * tokens);
      EXPECT_GE(layout.slots_at(), layout.positions_at() + 2 * tokens);
      EXPECT_GE(layout.tiles_at(), layout.slots_at() + tokens);
      EXPECT_GE(layout.keys_at(), layout.tiles_at() + 5 * tiles);
      EXPECT_EQ(layout.keys_at(), roomy.keys_at());  // a roomy buffer begins alike
    }
  }
}

TEST(StagedPlan, PaddedSizesAreFewAndNear) {
  std::vector<int64_t> sizes;
  for (int64_t count = 1; count <= 512; ++count) {
    const int64_t size = PaddedSize(count);
    EXPECT_GE(size, count);
    if (count > 16) {
      EXPECT_LT(size, 1.5 * count);
    }
    if (sizes.empty() || sizes.back() != size) sizes.push_back(size);
  }
  EXPECT_EQ(sizes, (std::vector<int64_t>{16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512}));
}

}  // namespace
}  // namespace lmfusion
