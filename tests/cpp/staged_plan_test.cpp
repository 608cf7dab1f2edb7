// Plans as one buffer, and batches that do not fit the device.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "cache/path_piece.h"
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
  QueryBlockOptions options;
  options.wanted_blocks = 0;
  const StagedPlan staged = StagePlan(SamplePlan(), options, 5, /*pad_blocks=*/true, 99, false);
  const PlanTensors views = ViewsOf(staged.buffer, staged.layout);
  EXPECT_EQ(Values<int64_t>(views.tokens), (std::vector<int64_t>{7, 8, 9, 0, 0}));
  EXPECT_EQ(Values<int64_t>(views.positions), (std::vector<int64_t>{2, 3, 2, 0, 0}));
  EXPECT_EQ(Values<int32_t>(views.slots), (std::vector<int32_t>{10, 11, 12, 99, 99}));
  EXPECT_EQ(views.blocks.size(0), PaddedSize(1));
  EXPECT_EQ(Values<int32_t>(views.blocks[0]), (std::vector<int32_t>{0, 5, 0, 5, -1}));
  EXPECT_EQ(Values<int32_t>(views.blocks[1]), (std::vector<int32_t>{0, 0, 0, 0, -1}));
  EXPECT_EQ(Values<int32_t>(views.keys),
            (std::vector<int32_t>{4, 0, 0, 3, 5, 1, 0, 3, 10, 2, 0, 2, 11, 3, 0, 2, 12, 2, 2, 3}));
}

TEST(StagedPlan, PartsAreAlignedAndKeysComeLast) {
  for (int64_t tokens : {1, 3, 16, 511}) {
    for (int64_t blocks : {1, 7, 24}) {
      PlanLayout layout, roomy;
      layout.tokens = roomy.tokens = tokens;
      layout.blocks = roomy.blocks = blocks;
      layout.keys = 5;
      roomy.keys = 5000;
      for (const int64_t at :
           {layout.positions_at(), layout.slots_at(), layout.blocks_at(), layout.keys_at()}) {
        EXPECT_EQ(at % 4, 0);
      }
      EXPECT_GE(layout.positions_at(), 2 * tokens);
      EXPECT_GE(layout.slots_at(), layout.positions_at() + 2 * tokens);
      EXPECT_GE(layout.blocks_at(), layout.slots_at() + tokens);
      EXPECT_GE(layout.keys_at(), layout.blocks_at() + 5 * blocks);
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

// A device that takes batches of a few tokens only.
class SmallDevice final : public CausalLM {
 public:
  explicit SmallDevice(int64_t most) : most_(most) {}
  const ModelDescription& description() const override { return description_; }
  int64_t slot_bytes() const override { return 1; }
  void Reserve(int64_t) override {}
  void SetWordBeginnings(const std::vector<bool>&) override {}
  void Forward(const BatchPlan& plan) override {
    asked.push_back(plan.size());
    if (plan.size() > most_) throw OutOfDeviceMemory("too many tokens");
    for (const SlotId slot : plan.slots) done.push_back(slot);
  }
  OutputAnswers Answer(const OutputQuestions& questions) override {
    OutputAnswers answers;
    answers.normalizers.assign(questions.normalizer_slots.size(), 0.0f);
    answers.logits.assign(questions.logit_slots.size(), -1.0f);
    return answers;
  }
  void ReadSlots(const std::vector<SlotId>&, char*) override {}
  void WriteSlots(const std::vector<SlotId>&, const char*) override {}
  std::string SlotFormat() const override { return "nothing"; }
  std::vector<int64_t> asked;
  std::vector<SlotId> done;

 private:
  const int64_t most_;
  const ModelDescription description_;
};

TEST(OutOfDeviceMemory, HalvesTheBatchAndGoesOn) {
  SmallDevice device(3);
  TokenTree tree(64, 1, 1 << 20);
  NodeId node = tree.NewRoot();
  PathPiece piece(tree, device, 16);
  for (int32_t token = 0; token < 12; ++token) node = tree.FindOrAdd(node, token);
  piece.Visit(node);
  piece.WantScores(node, 5);
  PathPiece::Counts counts;
  piece.Compute(&counts);
  EXPECT_EQ(counts.computed, 11u);  // the last token needs no pass
  EXPECT_EQ(device.asked, (std::vector<int64_t>{11, 5, 2, 2, 2, 2, 2, 1}));
  EXPECT_EQ(device.done.size(), 11u);
  EXPECT_EQ(tree.log_prob(node), -1.0f);
  piece.Close();
}

TEST(OutOfDeviceMemory, OneTokenThatDoesNotFitIsAnError) {
  SmallDevice device(0);
  TokenTree tree(64, 1, 1 << 20);
  const NodeId root = tree.NewRoot();
  const NodeId node = tree.FindOrAdd(tree.FindOrAdd(root, 1), 2);
  {
    PathPiece piece(tree, device, 16);
    piece.Visit(node);
    piece.WantScores(node, 1);
    PathPiece::Counts counts;
    EXPECT_THROW(piece.Compute(&counts), OutOfDeviceMemory);
  }
  EXPECT_EQ(tree.slots_in_use(), 0);
}

}  // namespace
}  // namespace lmfusion
