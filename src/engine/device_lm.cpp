#include "engine/device_lm.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/callers_state.h"
#include "engine/device_module.h"
#include "engine/device_runtime.h"
#include "engine/loaded_module.h"
#include "engine/slot_rows.h"
#include "engine/staged_plan.h"
#include "lmfusion/errors.h"

// Note [Recorded forward passes]
// A small batch is hundreds of small kernels, whose launches take longer than they run. Batches of
// up to kRecordedTokens tokens are padded to a few sizes, and the second time a size comes its
// launches are recorded (a CUDA graph) and from then on replayed as one. A recording reads its
// indices from a buffer of its own, and writes only to the pools and the flag below. The first
// time runs as it is: libraries allocate their workspaces then. Where a recording fails (an
// operator that waits for the device), recording is switched off for this model and passes run as
// they are.

namespace lmfusion {
namespace {

constexpr int64_t kRecordedTokens = 512;
constexpr int64_t kRecordedKeys = int64_t{1} << 15;  // of all query blocks, half a megabyte
constexpr size_t kMostRecordings = 64;
constexpr double kAutoShare = 0.5;  // of the free memory, for the cache

class AsExported {
  CallersStateAside callers_;
  torch::jit::GraphOptimizerEnabledGuard guard_{false};
  c10::InferenceMode inference_;
};

at::ScalarType TypeByName(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "float16") return at::kHalf;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float8") return at::kFloat8_e4m3fn;
  throw std::invalid_argument("kv_dtype = \"" + name +
                              "\"; \"auto\", \"float32\", \"bfloat16\", "
                              "\"float16\" or \"float8\" expected");
}

std::string NameOf(at::ScalarType type) {
  for (const char* name : {"float32", "float16", "bfloat16"}) {
    if (TypeByName(name) == type) return name;
  }
  return "float8";
}

at::ScalarType ActivationType(const std::string& compute) {
  if (compute == "float32") return at::kFloat;
  if (compute == "float16") return at::kHalf;
  if (compute == "bfloat16" || compute == "int8" || compute == "int4") return at::kBFloat16;
  throw std::invalid_argument("compute = \"" + compute +
                              "\"; \"float32\", \"bfloat16\", "
                              "\"float16\", \"int8\" or \"int4\" expected on a device");
}

// The first or the second half of the questions.
OutputQuestions Half(const OutputQuestions& questions, bool second) {
  const auto part = [second](const auto& all) {
    const auto middle = all.begin() + static_cast<int64_t>(all.size() / 2);
    return second ? std::decay_t<decltype(all)>(middle, all.end())
                  : std::decay_t<decltype(all)>(all.begin(), middle);
  };
  OutputQuestions half;
  half.normalizer_slots = part(questions.normalizer_slots);
  half.logit_slots = part(questions.logit_slots);
  half.logit_tokens = part(questions.logit_tokens);
  half.word_ends = questions.word_ends;
  return half;
}

[[noreturn]] void ThrowNotFinite() {
  throw NumericalError(
      "the model gave a value that is not finite (NaN or infinity); nothing of this call was kept. "
      "If it comes again with other texts, the weights or the compute type are the cause");
}

class Model final : public CausalLM {
 public:
  Model(const torch::jit::Module& module, StoredWeights weights, ModelDescription description,
        const DeviceLMOptions& options, std::unique_ptr<DeviceRuntime> runtime)
      : description_(std::move(description)),
        hidden_type_(ActivationType(options.compute)),
        kv_type_(options.kv_dtype == "auto" ? hidden_type_ : TypeByName(options.kv_dtype)),
        slot_format_("compute " + options.compute + ", keys and values " + NameOf(kv_type_) +
                     ", hidden states " + NameOf(hidden_type_)),
        runtime_(std::move(runtime)),
        device_(runtime_->device()) {
    const AsExported guard;
    OrOutOfMemory("the weights", [&] {
      module_ = MoveToDevice(module, weights, device_, options.compute);
      module_.output.scale = description_.logit_scale;
      module_.output.softcap = description_.logit_softcap;
      finite_ = at::ones({1}, at::TensorOptions(device_).dtype(at::kBool));
    });
    runtime_->Wait();
    blocks_.group = static_cast<int>(description_.q_heads / description_.kv_heads);
    blocks_.kv_heads = static_cast<int>(description_.kv_heads);
    blocks_.wanted_blocks = 2 * runtime_->multiprocessors();
  }

  ~Model() override { runtime_->Wait(); }

  const ModelDescription& description() const override { return description_; }

  int64_t slot_bytes() const override {
    const ModelDescription& d = description_;
    const auto kv_bytes = static_cast<int64_t>(c10::elementSize(kv_type_));
    return 2 * d.layers * d.kv_heads * d.head_dim * kv_bytes +
           d.hidden_size * static_cast<int64_t>(c10::elementSize(hidden_type_));
  }

  int64_t AutoCacheBytes() const override {
    return static_cast<int64_t>(kAutoShare * static_cast<double>(runtime_->free_bytes()));
  }

  void Reserve(int64_t slots) override {
    const ModelDescription& d = description_;
    const AsExported guard;
    spare_slot_ = static_cast<SlotId>(slots);  // padding tokens go there
    const at::TensorOptions options(device_);
    OrOutOfMemory("a cache of this size; give kv_cache_bytes less", [&] {
      kv_ = at::empty({d.layers, 2, slots + 1, d.kv_heads, d.head_dim}, options.dtype(kv_type_));
      hidden_ = at::zeros({slots + 1, d.hidden_size}, options.dtype(hidden_type_));
    });
  }

  void SetWordBeginnings(const std::vector<bool>& begins_word) override {
    const AsExported guard;
    const at::Tensor mask = at::empty({static_cast<int64_t>(begins_word.size())}, at::kBool);
    std::copy(begins_word.begin(), begins_word.end(), mask.data_ptr<bool>());
    begins_word_ = mask.to(device_);
  }

  void Forward(const BatchPlan& plan) override {
    const AsExported guard;
    const bool may_record = recording_ && plan.size() <= kRecordedTokens;
    const int64_t tokens = may_record ? PaddedSize(plan.size()) : plan.size();
    const StagedPlan staged =
        StagePlan(plan, blocks_, tokens, may_record, spare_slot_, device_.is_cuda());
    OrOutOfMemory("a batch", [&] {
      if (may_record && staged.layout.keys <= kRecordedKeys) {
        RunRecorded(staged);
      } else {
        const at::Tensor buffer = staged.buffer.to(device_, /*non_blocking=*/true);
        Run(ViewsOf(buffer, staged.layout));
      }
    });
    padded_ += static_cast<uint64_t>(tokens - plan.size());
  }

  OutputAnswers Answer(const OutputQuestions& questions) override {
    try {
      return AnswerAtOnce(questions);
    } catch (const OutOfDeviceMemory&) {
      if (std::max(questions.normalizer_slots.size(), questions.logit_slots.size()) < 2) throw;
    }
    OutputAnswers answers = Answer(Half(questions, false));
    const OutputAnswers others = Answer(Half(questions, true));
    const auto append = [](std::vector<float>* to, const std::vector<float>& from) {
      to->insert(to->end(), from.begin(), from.end());
    };
    append(&answers.normalizers, others.normalizers);
    append(&answers.word_end_log_probs, others.word_end_log_probs);
    append(&answers.logits, others.logits);
    return answers;
  }

  void ReadSlots(const std::vector<SlotId>& slots, char* bytes) override {
    const AsExported guard;
    runtime_->OnQueue([&] { ReadSlotRows(kv_, hidden_, slots, bytes); });
  }

  void WriteSlots(const std::vector<SlotId>& slots, const char* bytes) override {
    const AsExported guard;
    runtime_->OnQueue([&] { WriteSlotRows(kv_, hidden_, slots, bytes); });
    runtime_->Wait();
  }

  std::string SlotFormat() const override { return slot_format_; }

  void AddTo(Stats* stats) const override {
    stats->tokens_padded += padded_;
    stats->forwards_replayed += replayed_;
    stats->weight_bytes = module_.weight_bytes;
  }

 private:
  using Size = std::pair<int64_t, int64_t>;  // tokens, blocks
  struct Recorded {
    at::Tensor buffer;
    PlanLayout layout;
    int recording = -1;
  };

  // Queues `work`; throws OutOfDeviceMemory where the device lacks memory for it.
  template <typename Work>
  void OrOutOfMemory(const char* what, const Work& work) {
    try {
      runtime_->OnQueue(work);
    } catch (const std::exception& error) {
      if (!IsOutOfMemory(error)) throw;
      throw OutOfDeviceMemory("device " + device_.str() + " has too little memory left for " +
                              what + ": " + TextOf(error));
    }
  }

  // Queues one forward pass over the plan in `plan`.
  void Run(const PlanTensors& plan) {
    torch::jit::Stack stack = {plan.tokens, plan.positions, plan.slots,
                               plan.blocks, plan.keys,      kv_};
    module_.forward->run(stack);
    const at::Tensor hidden = stack.front().toTensor();
    finite_.logical_and_(hidden.isfinite().all());
    hidden_.index_copy_(0, plan.slots.to(at::kLong), hidden.to(hidden_type_));
  }

  void RunRecorded(const StagedPlan& staged) {
    const Size size(staged.layout.tokens, staged.layout.blocks);
    auto found = recorded_.find(size);
    const bool is_new = found == recorded_.end();
    if (is_new) {
      if (recorded_.size() == kMostRecordings) {
        const at::Tensor buffer = staged.buffer.to(device_, /*non_blocking=*/true);
        return Run(ViewsOf(buffer, staged.layout));
      }
      Recorded made;
      made.layout = staged.layout;
      made.layout.keys = kRecordedKeys;
      made.buffer = at::zeros({made.layout.size()}, at::TensorOptions(device_).dtype(at::kInt));
      found = recorded_.emplace(size, std::move(made)).first;
    }
    Recorded& recorded = found->second;
    recorded.buffer.narrow(0, 0, staged.buffer.numel()).copy_(staged.buffer, /*non_blocking=*/true);
    if (!is_new && recording_ && recorded.recording < 0) {
      const PlanTensors views = ViewsOf(recorded.buffer, recorded.layout);
      recorded.recording = runtime_->Record([this, views] {
        const AsExported guard;
        Run(views);
      });
      recording_ = recorded.recording >= 0;
    }
    if (recorded.recording >= 0) {
      runtime_->Replay(recorded.recording);
      ++replayed_;
    } else {
      Run(ViewsOf(recorded.buffer, recorded.layout));
    }
  }

  OutputAnswers AnswerAtOnce(const OutputQuestions& questions) {
    const AsExported guard;
    const auto normalizers = static_cast<int64_t>(questions.normalizer_slots.size());
    const auto logits = static_cast<int64_t>(questions.logit_slots.size());
    const bool word_ends = questions.word_ends && normalizers > 0;
    at::Tensor results;
    OrOutOfMemory("the output layer", [&] { results = Ask(questions); });
    runtime_->Wait();  // the only one
    const float* values = results.const_data_ptr<float>();
    if (*values == 0) ThrowNotFinite();
    ++values;
    OutputAnswers answers;
    answers.normalizers.assign(values, values + normalizers);
    values += normalizers;
    if (word_ends) {
      answers.word_end_log_probs.assign(values, values + normalizers);
      for (int64_t i = 0; i < normalizers; ++i) {
        answers.word_end_log_probs[i] -= answers.normalizers[i];
      }
      values += normalizers;
    }
    answers.logits.assign(values, values + logits);
    for (const float value : answers.normalizers) {
      if (!std::isfinite(value)) ThrowNotFinite();
    }
    return answers;
  }

  // Queues the answers: [1 + N (+ N) + M] float32 on the host: whether all was finite, the
  // normalisers of all words, of those that begin a word, the logits.
  at::Tensor Ask(const OutputQuestions& questions) {
    const auto normalizers = static_cast<int64_t>(questions.normalizer_slots.size());
    const auto logits = static_cast<int64_t>(questions.logit_slots.size());
    const at::Tensor asked = at::empty(
        {normalizers + 2 * logits}, at::TensorOptions(at::kInt).pinned_memory(device_.is_cuda()));
    int32_t* data = asked.data_ptr<int32_t>();
    data = std::copy(questions.normalizer_slots.begin(), questions.normalizer_slots.end(), data);
    data = std::copy(questions.logit_slots.begin(), questions.logit_slots.end(), data);
    std::copy(questions.logit_tokens.begin(), questions.logit_tokens.end(), data);
    const at::Tensor indices = asked.to(device_, /*non_blocking=*/true);
    std::vector<at::Tensor> parts = {finite_.to(at::kFloat)};
    if (normalizers > 0) {
      const at::Tensor rows = hidden_.index_select(0, indices.narrow(0, 0, normalizers));
      if (questions.word_ends) {
        const auto [all, some] = LogNormalizers(rows, module_.output, begins_word_);
        parts.push_back(all);
        parts.push_back(some);
      } else {
        parts.push_back(LogNormalizer(rows, module_.output));
      }
    }
    if (logits > 0) {
      const at::Tensor rows = hidden_.index_select(0, indices.narrow(0, normalizers, logits));
      const at::Tensor tokens = indices.narrow(0, normalizers + logits, logits).to(at::kLong);
      parts.push_back(TokenLogits(rows, tokens, module_.output));
    }
    const at::Tensor all = at::cat(parts);
    const at::Tensor host =
        at::empty(all.sizes(), at::TensorOptions(at::kFloat).pinned_memory(device_.is_cuda()));
    host.copy_(all, /*non_blocking=*/true);
    finite_.fill_(true);  // last: what lacked memory is asked again
    return host;
  }

  const ModelDescription description_;
  const at::ScalarType hidden_type_, kv_type_;
  const std::string slot_format_;
  const std::unique_ptr<DeviceRuntime> runtime_;
  const c10::Device device_;
  DeviceModule module_;
  QueryBlockOptions blocks_;
  at::Tensor kv_;           // [layers, 2, slots + 1, kv_heads, head_dim]
  at::Tensor hidden_;       // [slots + 1, hidden_size]
  at::Tensor begins_word_;  // [vocabulary] bool
  at::Tensor finite_;       // [1] bool, of all passes since the last answer
  SlotId spare_slot_ = 0;
  std::map<Size, Recorded> recorded_;
  bool recording_ = true;
  std::atomic<uint64_t> padded_{0}, replayed_{0};
};

}  // namespace

std::unique_ptr<CausalLM> DeviceLM(const torch::jit::Module& module, StoredWeights weights,
                                   ModelDescription description, const DeviceLMOptions& options) {
  return DeviceLM(module, std::move(weights), std::move(description), options,
                  OpenDevice(options.device));
}

std::unique_ptr<CausalLM> DeviceLM(const torch::jit::Module& module, StoredWeights weights,
                                   ModelDescription description, const DeviceLMOptions& options,
                                   std::unique_ptr<DeviceRuntime> runtime) {
  return std::make_unique<Model>(module, std::move(weights), std::move(description), options,
                                 std::move(runtime));
}

}  // namespace lmfusion
