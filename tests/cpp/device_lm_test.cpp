// The device path around the kernels, on a device that the tests make up: memory that runs out,
// recordings that fail, waits, loading. The oracle is the same small model in plain float64.
#include "engine/device_lm.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <gtest/gtest.h>
#include <torch/csrc/jit/frontend/resolver.h>
#include <torch/csrc/jit/frontend/sugared_value.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cache/path_scorer.h"
#include "counting_allocator.h"
#include "engine/cpu_lm.h"
#include "engine/device_module.h"

namespace lmfusion {
namespace {

constexpr int64_t kVocabulary = 50, kWidth = 64, kHeads = 4, kKvHeads = 2, kHeadDim = 16;
using Tokens = std::vector<int32_t>;

// An operator of the model that lacks memory for batches above a size, or gives NaN, or fails.
int64_t most_rows = 0;
bool gives_nan = false, fails = false;
at::Tensor Limited(const at::Tensor& x) {
  TORCH_CHECK_WITH(OutOfMemoryError, most_rows == 0 || x.size(0) <= most_rows,
                   "CUDA out of memory. Tried to allocate 20.00 GiB.");
  TORCH_CHECK(!fails, "this operator\nhas failed");
  return gives_nan ? at::full_like(x, NAN) : x.clone();
}

TORCH_LIBRARY(lmfusion_test, m) { m.def("limited(Tensor x) -> Tensor", &Limited); }

struct FakeDevice {
  int recordings = 0, replays = 0, waits = 0;
  bool can_record = true, wait_fails = false;
};

// The host, whatever happens on it written down.
class FakeRuntime final : public DeviceRuntime {
 public:
  explicit FakeRuntime(FakeDevice& seen) : seen_(seen) {}
  c10::Device device() const override { return c10::kCPU; }
  int multiprocessors() const override { return 4; }
  int64_t free_bytes() const override { return 1'000'000; }
  void OnQueue(const std::function<void()>& work) override { work(); }
  void Wait() override {
    ++seen_.waits;
    if (seen_.wait_fails) throw std::runtime_error("CUDA error: unspecified launch failure");
  }
  int Record(const std::function<void()>& work) override {
    ++seen_.recordings;
    if (!seen_.can_record) return -1;
    recorded_.push_back(work);
    return static_cast<int>(recorded_.size()) - 1;
  }
  void Replay(int recording) override {
    ++seen_.replays;
    recorded_[recording]();
  }

 private:
  FakeDevice& seen_;
  std::vector<std::function<void()>> recorded_;
};

struct Resolver final : torch::jit::Resolver {
  std::shared_ptr<torch::jit::SugaredValue> resolveValue(const std::string& name,
                                                         torch::jit::GraphFunction&,
                                                         const torch::jit::SourceRange&) override {
    const std::string library = name == "torch" ? "aten" : name;
    return std::make_shared<torch::jit::BuiltinModule>(library);
  }
};

torch::jit::Module Compiled(const std::vector<std::pair<std::string, at::Tensor>>& weights,
                            const std::string& source) {
  torch::jit::Module module("toy");
  for (const auto& [name, weight] : weights) module.register_parameter(name, weight, false);
  module.define(source, std::make_shared<Resolver>());
  return module;
}

torch::jit::Module Toy() {
  at::manual_seed(5);
  const auto matrix = [](int64_t rows, double scale) { return at::randn({rows, kWidth}) * scale; };
  const int64_t kv_width = kKvHeads * kHeadDim;
  return Compiled({{"table", matrix(kVocabulary, 1)},
                   {"q", matrix(kHeads * kHeadDim, 0.2)},
                   {"k", matrix(kv_width, 0.2)},
                   {"v", matrix(kv_width, 0.2)},
                   {"o", matrix(kWidth, 0.2)},
                   {"output_weight", matrix(kVocabulary, 0.3)}},
                  R"(
def forward(self, tokens, positions, slots, segments, segment_slots, kv):
    x = lmfusion_test.limited(torch.embedding(self.table, tokens))
    q = torch.linear(x, self.q).view([-1, 4, 16])
    k = torch.linear(x, self.k).view([-1, 2, 16])
    v = torch.linear(x, self.v).view([-1, 2, 16])
    a = lmfusion.tree_attention(
        q, k, v, None, kv, positions, slots, segments, segment_slots, 0, 0.25, 0, 0.0)
    return x + torch.linear(a.reshape([-1, 64]), self.o)
)");
}

// log p of every token after the first.
std::vector<double> LogProbs(const torch::jit::Module& toy, const Tokens& path) {
  const auto weight = [&](const char* name) { return toy.attr(name).toTensor().to(at::kDouble); };
  const at::Tensor ids = at::tensor(path, at::kInt);
  const at::Tensor x = at::embedding(weight("table"), ids);
  const auto heads = [&](const char* name, int64_t count) {
    return at::linear(x, weight(name)).view({-1, count, kHeadDim}).transpose(0, 1);
  };
  const int64_t group = kHeads / kKvHeads;
  const at::Tensor k = heads("k", kKvHeads).repeat_interleave(group, 0);
  const at::Tensor v = heads("v", kKvHeads).repeat_interleave(group, 0);
  const at::Tensor scores = at::matmul(heads("q", kHeads), k.transpose(1, 2)) * 0.25;
  const at::Tensor later = at::ones_like(scores, at::kBool).triu(1);
  const at::Tensor mixed = at::matmul(scores.masked_fill(later, -INFINITY).softmax(-1), v);
  const at::Tensor hidden =
      x + at::linear(mixed.transpose(0, 1).reshape({-1, kWidth}), weight("o"));
  const at::Tensor log_p = at::linear(hidden, weight("output_weight")).log_softmax(-1);
  std::vector<double> result;
  for (size_t i = 1; i < path.size(); ++i) {
    result.push_back(log_p[static_cast<int64_t>(i) - 1][path[i]].item<double>());
  }
  return result;
}

ModelDescription ToyDescription() {
  ModelDescription d;
  d.layers = 1;
  d.q_heads = kHeads;
  d.kv_heads = kKvHeads;
  d.head_dim = kHeadDim;
  d.windows = {0};
  d.hidden_size = kWidth;
  d.vocabulary_size = kVocabulary;
  return d;
}

std::unique_ptr<TreeEngine> OnFake(FakeDevice& device, const std::string& compute = "float32",
                                   const std::string& kv_dtype = "auto") {
  const torch::jit::Module toy = Toy();
  return DeviceLM(toy, StoredWeights(toy, {}, "toy"), ToyDescription(),
                  {"cuda", ComputeByName(compute), kv_dtype},
                  std::make_unique<FakeRuntime>(device));
}

Tokens PathOf(int32_t length, int32_t step) {
  Tokens path;
  for (int32_t i = 0; i < length; ++i) path.push_back((1 + i * step) % kVocabulary);
  return path;
}

TokenPaths PathsOf(const std::vector<Tokens>& texts) {
  TokenPaths paths;
  for (const Tokens& text : texts) {
    TokenPaths::Path path;
    path.tail = text;
    path.scored_begin = 1;
    path.alternative = static_cast<int32_t>(paths.paths.size());
    paths.candidate_of.push_back(path.alternative);
    paths.paths.push_back(path);
  }
  paths.candidates = static_cast<int32_t>(texts.size());
  return paths;
}

void ExpectRight(PathScorer& scorer, const std::vector<Tokens>& texts) {
  const torch::jit::Module toy = Toy();
  const PathScores scores = scorer.Score(PathsOf(texts), "");
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::vector<double> wanted = LogProbs(toy, texts[i]);
    ASSERT_EQ(scores.log_probs[i].size(), wanted.size());
    for (size_t k = 0; k < wanted.size(); ++k) {
      EXPECT_NEAR(scores.log_probs[i][k], wanted[k], 1e-4) << i << " " << k;
    }
  }
}

class DeviceLMTest : public testing::Test {
 protected:
  void TearDown() override {
    most_rows = 0;
    gives_nan = fails = false;
  }

  std::unique_ptr<PathScorer> Scorer(int64_t max_batch_tokens = 512) {
    PathScorerOptions options;
    options.max_batch_tokens = max_batch_tokens;
    options.kv_cache_bytes = 1 << 20;
    return CachedPathScorer(OnFake(device_), options);
  }
  static Stats StatsOf(const PathScorer& scorer) {
    Stats stats;
    scorer.AddTo(&stats);
    return stats;
  }

  FakeDevice device_;
};

TEST_F(DeviceLMTest, MemoryThatRunsOutInAnOperatorHalvesTheBatch) {
  const auto scorer = Scorer();
  most_rows = 16;
  ExpectRight(*scorer, {PathOf(40, 1), PathOf(45, 3)});
  const Stats stats = StatsOf(*scorer);
  EXPECT_EQ(stats.tokens_computed, 39u + 44u - 1u);  // the start token is shared
  EXPECT_GE(stats.forwards, 82u / 16u + 1u);
  ExpectRight(*scorer, {PathOf(30, 7)});  // and later calls go on
}

TEST_F(DeviceLMTest, MemoryForOneTokenIsNeeded) {
  const auto scorer = Scorer();
  most_rows = 1;  // padded to 16
  try {
    scorer->Score(PathsOf({PathOf(5, 1)}), "");
    FAIL();
  } catch (const OutOfDeviceMemory& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("too little memory left for a batch: "), std::string::npos) << text;
    EXPECT_NE(text.find("Tried to allocate 20.00 GiB"), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
  EXPECT_EQ(StatsOf(*scorer).cached_tokens, 0);
  most_rows = 0;
  ExpectRight(*scorer, {PathOf(5, 1)});
}

TEST_F(DeviceLMTest, MemoryThatRunsOutInTheOutputLayerHalvesTheQuestions) {
  const auto model = OnFake(device_);
  model->Reserve(kVocabulary);
  model->SetWordBeginnings(std::vector<bool>(kVocabulary, true));
  BatchPlan plan;  // every token at the beginning of a text of its own
  for (int32_t token = 0; token < kVocabulary; ++token) {
    plan.tokens.push_back(token);
    plan.positions.push_back(0);
    plan.slots.push_back(token);
    plan.segments.push_back({token, token + 1, token, token + 1, 0});
    plan.segment_slots.push_back(token);
  }
  model->Forward(plan);
  OutputQuestions questions;
  questions.word_ends = true;
  for (int32_t token = 0; token < kVocabulary; ++token) {
    questions.normalizer_slots.push_back(token);
    questions.logit_slots.push_back(kVocabulary - 1 - token);
    questions.logit_tokens.push_back(token);
  }
  CountingAllocator allocator;
  allocator.SetLimit(8 * kWidth * 4);  // eight hidden states
  const OutputAnswers answers = model->Answer(questions);
  allocator.SetLimit(4);
  EXPECT_THROW(model->Answer(questions), OutOfDeviceMemory);
  allocator.SetLimit(0);
  ASSERT_EQ(answers.normalizers.size(), static_cast<size_t>(kVocabulary));
  ASSERT_EQ(answers.word_end_log_probs.size(), static_cast<size_t>(kVocabulary));
  const torch::jit::Module toy = Toy();
  for (int32_t token = 0; token < kVocabulary; ++token) {
    const int32_t after = kVocabulary - 1 - token;
    EXPECT_NEAR(answers.logits[token] - answers.normalizers[after],
                LogProbs(toy, {after, token})[0], 1e-4);
    EXPECT_NEAR(answers.word_end_log_probs[token], 0, 1e-5);  // all tokens begin a word
  }
}

BatchPlan PlanOf(int32_t token) {
  BatchPlan plan;
  plan.tokens = {token};
  plan.positions = {0};
  plan.slots = {token};
  plan.segments = {{0, 1, 0, 1, 0}};
  plan.segment_slots = {token};
  return plan;
}

OutputQuestions QuestionsOf(SlotId slot) {
  OutputQuestions questions;
  questions.normalizer_slots = {slot};
  questions.logit_slots = {slot};
  questions.logit_tokens = {7};
  return questions;
}

// What both engines do alike, through the same base.
class EveryEngine : public DeviceLMTest, public testing::WithParamInterface<const char*> {
 protected:
  std::unique_ptr<TreeEngine> Engine() {
    if (std::string(GetParam()) != "cpu") return OnFake(device_);
    const torch::jit::Module toy = Toy();
    return CpuLM(toy, StoredWeights(toy, {}, "toy"), ToyDescription(), Compute::kFloat32);
  }

  void ExpectAnswers(CausalLM& model, int32_t token) {
    model.Forward(PlanOf(token));
    const OutputAnswers answers = model.Answer(QuestionsOf(token));
    EXPECT_NEAR(answers.logits[0] - answers.normalizers[0], LogProbs(Toy(), {token, 7})[0], 1e-4);
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, EveryEngine, testing::Values("cpu", "device"));

TEST_P(EveryEngine, ValuesThatAreNotFiniteFailTheAnswerAfterThem) {
  const auto model = Engine();
  model->Reserve(64);
  gives_nan = true;
  model->Forward(PlanOf(3));
  gives_nan = false;
  model->Forward(PlanOf(4));
  EXPECT_THROW(model->Answer(QuestionsOf(4)), NumericalError);
  ExpectAnswers(*model, 5);
}

TEST_P(EveryEngine, AForwardThatThrowsIsForgottenByTheNextCall) {
  const auto model = Engine();
  model->Reserve(64);
  for (const bool memory : {false, true}) {
    gives_nan = true;
    model->Forward(PlanOf(3));  // of a call that fails for another reason
    gives_nan = false;
    if (memory) {
      most_rows = 1;  // fewer than a device pads to
      if (std::string(GetParam()) != "cpu") {
        EXPECT_THROW(model->Forward(PlanOf(4)), OutOfDeviceMemory);
      }
      most_rows = 0;
    }
    fails = !memory || std::string(GetParam()) == "cpu";
    if (fails) {
      EXPECT_THROW(model->Forward(PlanOf(4)), ModelFileError);
    }
    fails = false;
    ExpectAnswers(*model, 5);
  }
}

TEST_P(EveryEngine, ErrorsOfTheGraphAreOneLineOfTheModelFile) {
  const auto model = Engine();
  model->Reserve(64);
  fails = true;
  try {
    model->Forward(PlanOf(4));
    FAIL();
  } catch (const ModelFileError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("its graph does not run: "), std::string::npos) << text;
    EXPECT_NE(text.find("this operator"), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }
  EXPECT_THROW(Engine()->Probe(), ModelFileError);
  fails = false;
  Engine()->Probe();
}

TEST_P(EveryEngine, CachesBeyondTheMemoryAreBudgetErrors) {
  const auto model = Engine();
  for (const int64_t slots : {int64_t{1} << 40, int64_t{1} << 62}) {
    EXPECT_THROW(model->Reserve(slots), CacheBudgetError) << slots;
  }
  CountingAllocator allocator;
  allocator.SetLimit(1000);
  EXPECT_THROW(model->Reserve(64), CacheBudgetError);
  allocator.SetLimit(0);
  model->Reserve(64);
  ExpectAnswers(*model, 5);
}

TEST_F(DeviceLMTest, EndsQuietlyOnADeviceThatFails) {
  auto model = OnFake(device_);
  model->Reserve(64);
  model->Forward(PlanOf(4));
  device_.wait_fails = true;
  try {
    model->Answer(QuestionsOf(4));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "device cpu failed: CUDA error: unspecified launch failure");
  }
  model.reset();
}

TEST_F(DeviceLMTest, RecordingsThatFailAreNotTriedAgain) {
  device_.can_record = false;
  const auto scorer = Scorer();
  for (int32_t step = 1; step < 6; ++step) ExpectRight(*scorer, {PathOf(20, step)});
  EXPECT_EQ(device_.recordings, 1);
  EXPECT_EQ(device_.replays, 0);
  const Stats stats = StatsOf(*scorer);
  EXPECT_EQ(stats.forwards_replayed, 0u);
  // 19 tokens once, then 18 beside the start token; padded until the recording failed.
  EXPECT_EQ(stats.tokens_padded, (24u - 19u) + (24u - 18u));
}

TEST_F(DeviceLMTest, RecordingsAreReplayedAndLargeBatchesAreNot) {
  const auto scorer = Scorer(600);
  for (int32_t step = 1; step < 6; ++step) ExpectRight(*scorer, {PathOf(20, step)});
  EXPECT_EQ(device_.recordings, 1);
  EXPECT_EQ(device_.replays, 4);
  const Stats before = StatsOf(*scorer);
  EXPECT_EQ(before.forwards_replayed, 4u);
  EXPECT_EQ(before.tokens_padded, (24u - 19u) + 4 * (24u - 18u));
  std::vector<Tokens> texts;
  for (int32_t i = 0; i < 30; ++i)
    texts.push_back({i, 1, 2, 3, i, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
  ExpectRight(*scorer, texts);  // 570 tokens
  EXPECT_EQ(StatsOf(*scorer).tokens_padded, before.tokens_padded);
}

TEST_F(DeviceLMTest, OnlyAnswersWait) {
  const auto model = OnFake(device_);
  model->Reserve(64);
  device_.waits = 0;
  for (int i = 0; i < 3; ++i) {
    BatchPlan plan;
    plan.tokens = {i};
    plan.positions = {0};
    plan.slots = {i};
    plan.segments = {{0, 1, 0, 1, 0}};
    plan.segment_slots = {i};
    model->Forward(plan);
  }
  EXPECT_EQ(device_.waits, 0);
  OutputQuestions questions;
  questions.normalizer_slots = {0, 1, 2};
  questions.logit_slots = {2};
  questions.logit_tokens = {7};
  const OutputAnswers answers = model->Answer(questions);
  EXPECT_EQ(device_.waits, 1);
  EXPECT_NEAR(answers.logits[0] - answers.normalizers[2], LogProbs(Toy(), {2, 7})[0], 1e-4);
}

TEST_F(DeviceLMTest, NothingReadsTheDeviceBetweenPlanAndAnswer) {
  static std::set<std::string> called;
  called.clear();
  const auto scorer = Scorer();
  // For all threads: those of one are put aside while the model runs.
  const auto observer =
      at::addGlobalCallback(at::RecordFunctionCallback([](const at::RecordFunction& call) {
                              called.insert(call.name());
                              return std::unique_ptr<at::ObserverContext>();
                            }).scopes({at::RecordScope::FUNCTION}));
  scorer->Score(PathsOf({PathOf(20, 1), PathOf(20, 3)}), "");
  at::removeCallback(observer);
  EXPECT_EQ(called.count("lmfusion::tree_attention"), 1u);  // the observer sees
  EXPECT_EQ(called.count("lmfusion::narrow_linear"), 1u);
  for (const char* waits : {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero",
                            "aten::nonzero", "aten::masked_select", "aten::equal"}) {
    EXPECT_EQ(called.count(waits), 0u) << waits;
  }
}

TEST_F(DeviceLMTest, AutoTakesHalfOfWhatIsFree) {
  EXPECT_EQ(OnFake(device_)->AutoCacheBytes(), 500'000);
}

TEST_F(DeviceLMTest, SlotsAreAsNarrowAsTheOptions) {
  const int64_t kv = 2 * kKvHeads * kHeadDim;
  EXPECT_EQ(OnFake(device_)->slot_bytes(), 4 * kv + 4 * kWidth);
  EXPECT_EQ(OnFake(device_, "bfloat16")->slot_bytes(), 2 * kv + 2 * kWidth);
  EXPECT_EQ(OnFake(device_, "bfloat16", "float8")->slot_bytes(), kv + 2 * kWidth);
  EXPECT_EQ(OnFake(device_, "int4", "float8")->slot_bytes(), kv + 2 * kWidth);
  EXPECT_EQ(OnFake(device_, "float32", "bfloat16")->slot_bytes(), 2 * kv + 4 * kWidth);
}

// --- loading ---

constexpr int64_t kLayers = 12, kRows = 1024, kColumns = 2048;

struct Loaded {
  int64_t stored = 0;  // bytes of the weights on the host before
  int64_t held = 0;    // afterwards, on the "device", which is the host too
  int64_t peak = 0;
  int64_t said = 0;  // DeviceModule::weight_bytes
};

// Bytes held while a chain of matrices is loaded. `type`: of their blocks, "" for bfloat16.
Loaded Load(const std::string& type, const std::string& compute) {
  CountingAllocator counter;
  const int64_t before = counter.held();
  std::map<std::string, std::string> types;
  std::vector<std::pair<std::string, at::Tensor>> weights = {
      {"output_weight", at::zeros({16, kColumns}, at::kBFloat16)}};
  std::string source = "def forward(self, x, a, b, c, d, e):\n";
  for (int64_t i = 0; i < kLayers; ++i) {
    const std::string name = "w" + std::to_string(i);
    if (type.empty()) {
      weights.emplace_back(name, at::ones({kRows, kColumns}, at::kBFloat16));
    } else {
      const int64_t bytes = type == "q8_0" ? 34 : type == "q4_0" ? 18 : 20;
      weights.emplace_back(name, at::ones({kRows, kColumns / 32 * bytes}, at::kByte));
      types[name] = type;
    }
    source += "    y = torch.linear(x, self." + name + ")\n    x = torch.cat([y, y], 1)\n";
  }
  const torch::jit::Module module = Compiled(weights, source + "    return x\n");
  weights.clear();
  Loaded loaded;
  loaded.stored = counter.held() - before;
  StoredWeights stored(module, types, "chain");
  counter.ResetPeak();
  const DeviceModule on_device = MoveToDevice(module, stored, c10::kCPU, ComputeByName(compute));
  loaded.peak = counter.peak() - before;
  loaded.held = counter.held() - before;
  loaded.said = on_device.weight_bytes;
  return loaded;
}

TEST(Loading, HoldsOneMatrixMoreThanItsTypesNeed) {
  constexpr int64_t kWeights = kLayers * kRows * kColumns, kMegabyte = 1'000'000;
  struct Case {
    const char *type, *compute;
    double stored, held;  // bytes a weight
  };
  for (const Case& c :
       {Case{"", "float32", 2, 4}, Case{"", "bfloat16", 2, 2}, Case{"", "float16", 2, 2},
        Case{"", "int8", 2, 1}, Case{"", "int4", 2, 20.0 / 32},
        Case{"q4_1", "int4", 20.0 / 32, 20.0 / 32}, Case{"q4_0", "int8", 18.0 / 32, 1},
        Case{"q8_0", "int4", 34.0 / 32, 1}, Case{"q4_1", "bfloat16", 20.0 / 32, 2}}) {
    const Loaded loaded = Load(c.type, c.compute);
    const std::string which = std::string(c.type) + " " + c.compute;
    EXPECT_NEAR(loaded.stored, c.stored * kWeights, kMegabyte) << which;
    EXPECT_NEAR(loaded.held, c.held * kWeights, kMegabyte) << which;
    EXPECT_NEAR(loaded.said, c.held * kWeights, kMegabyte) << which;
    // Either the first matrix is held in both types, or the last one; and a few pieces of rows.
    const double matrix = kRows * kColumns * (c.stored + c.held);
    EXPECT_LT(loaded.peak, std::max(loaded.stored, loaded.held) + matrix + 12 * kMegabyte) << which;
  }
}

}  // namespace
}  // namespace lmfusion
