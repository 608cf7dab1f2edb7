#include "engine/torchscript_lm.h"

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <cmath>
#include <optional>
#include <utility>

#include "engine/callers_state.h"
#include "engine/device_lm.h"
#include "engine/device_runtime.h"
#include "engine/loaded_module.h"
#include "engine/packed_graph.h"
#include "engine/slot_rows.h"
#include "engine/stored_weights.h"
#include "kernels/threads/parallel.h"
#include "lmfusion/errors.h"
#include "ops/output_ops.h"

namespace lmfusion {
namespace {

constexpr int64_t kFloatBytes = 4;

// TorchScript's profiling executor specialises a graph anew for many batch sizes (seconds each);
// without it a graph runs as it was exported.
class AsExported {
  CallersStateAside callers_;
  torch::jit::GraphOptimizerEnabledGuard guard_{false};
  c10::InferenceMode inference_;
};

at::Tensor View(const std::vector<int64_t>& values) {
  return at::from_blob(const_cast<int64_t*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::kLong);
}

at::Tensor View(const std::vector<int32_t>& values) {
  return at::from_blob(const_cast<int32_t*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::kInt);
}

at::Tensor WordBeginnings(const std::vector<bool>& begins_word) {
  const AsExported guard;
  at::Tensor mask = at::empty({static_cast<int64_t>(begins_word.size())}, at::kBool);
  bool* data = mask.data_ptr<bool>();
  for (size_t i = 0; i < begins_word.size(); ++i) data[i] = begins_word[i];
  return mask;
}

[[noreturn]] void ThrowNotFinite() {
  throw NumericalError(
      "the model gave a value that is not finite (NaN or infinity); nothing of this call was kept. "
      "If it comes again with other texts, the weights or the compute type are the cause");
}

std::vector<float> Floats(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kCPU, at::kFloat).contiguous();
  return {values.data_ptr<float>(), values.data_ptr<float>() + values.numel()};
}

class TorchScriptLM final : public CausalLM {
 public:
  TorchScriptLM(torch::jit::Module module, StoredWeights weights, ModelDescription description,
                const std::string& compute)
      : module_(std::move(module)),
        description_(std::move(description)),
        slot_format_("compute " + compute + ", keys and values float32, hidden states float32") {
    const OnlyOurThreads threads;
    packed_ = PackWeightsOf(module_, weights, ComputeByName(compute));
    weight_bytes_ = packed_.bytes + weights.bytes();
    output_.weight = packed_.output;
    output_.scale = description_.logit_scale;
    output_.softcap = description_.logit_softcap;
  }

  const ModelDescription& description() const override { return description_; }

  int64_t slot_bytes() const override {
    const ModelDescription& d = description_;
    return kFloatBytes * (2 * d.layers * d.kv_heads * d.head_dim + d.hidden_size);
  }

  void Reserve(int64_t slots) override {
    const AsExported guard;
    const ModelDescription& d = description_;
    // Not touched before it is used: the system gives pages as slots are filled.
    kv_ = at::empty({d.layers, 2, slots, d.kv_heads, d.head_dim}, at::kFloat);
    hidden_ = at::empty({slots, d.hidden_size}, at::kFloat);
  }

  void ReadSlots(const std::vector<SlotId>& slots, char* bytes) override {
    const AsExported guard;
    ReadSlotRows(kv_, hidden_, slots, bytes);
  }

  void WriteSlots(const std::vector<SlotId>& slots, const char* bytes) override {
    const AsExported guard;
    WriteSlotRows(kv_, hidden_, slots, bytes);
  }

  std::string SlotFormat() const override { return slot_format_; }

  void AddTo(Stats* stats) const override {
    stats->weight_bytes = weight_bytes_;
    stats->packed_linears = packed_.linears;
    stats->plain_linears = packed_.plain_linears;
    stats->fused_operators = packed_.fused_operators;
  }

  void SetWordBeginnings(const std::vector<bool>& begins_word) override {
    begins_word_ = WordBeginnings(begins_word);
  }

  void Forward(const BatchPlan& plan) override {
    const AsExported guard;
    const OnlyOurThreads threads(fully_packed());
    const auto segments = static_cast<int64_t>(plan.segments.size());
    const at::Tensor segment_table = at::from_blob(
        const_cast<BatchPlan::Segment*>(plan.segments.data()), {segments, 5}, at::kInt);
    const at::Tensor hidden = RunModel("the graph of the model file", [&] {
      return module_
          .forward({View(plan.tokens), View(plan.positions), View(plan.slots), segment_table,
                    View(plan.segment_slots), kv_})
          .toTensor();
    });
    finite_ = finite_ && hidden.isfinite().all().item<bool>();
    hidden_.index_copy_(0, View(plan.slots).to(at::kLong), hidden);
  }

  OutputAnswers Answer(const OutputQuestions& questions) override {
    const AsExported guard;
    const OnlyOurThreads threads(fully_packed());
    if (!std::exchange(finite_, true)) ThrowNotFinite();
    OutputAnswers answers;
    if (!questions.normalizer_slots.empty()) {
      const at::Tensor rows = hidden_.index_select(0, View(questions.normalizer_slots));
      if (questions.word_ends) {
        const auto [all, some] = LogNormalizers(rows, output_, begins_word_);
        answers.normalizers = Floats(all);
        answers.word_end_log_probs = Floats(some - all);
      } else {
        answers.normalizers = Floats(LogNormalizer(rows, output_));
      }
    }
    if (!questions.logit_slots.empty()) {
      const at::Tensor slots = View(questions.logit_slots).to(at::kLong);
      const at::Tensor tokens = View(questions.logit_tokens).to(at::kLong);
      answers.logits = Floats(TokenLogits(hidden_, slots, tokens, output_));
    }
    for (const float value : answers.normalizers) {
      if (!std::isfinite(value)) ThrowNotFinite();
    }
    return answers;
  }

 private:
  // Torch's own products, where there are any left, keep their threads.
  bool fully_packed() const { return packed_.plain_linears == 0; }

  torch::jit::Module module_;
  const ModelDescription description_;
  const std::string slot_format_;
  PackedGraph packed_;
  int64_t weight_bytes_ = 0;
  PackedOutputLayer output_;
  at::Tensor kv_;           // [layers, 2, slots, kv_heads, head_dim]
  at::Tensor hidden_;       // [slots, hidden_size]
  at::Tensor begins_word_;  // [vocabulary] bool
  bool finite_ = true;
};

class TorchScriptPlainLM final : public PlainLM {
 public:
  TorchScriptPlainLM(torch::jit::Module module, ModelDescription description)
      : module_(std::move(module)), description_(std::move(description)) {}

  const ModelDescription& description() const override { return description_; }

  void SetWordBeginnings(const std::vector<bool>& begins_word) override {
    begins_word_ = WordBeginnings(begins_word);
  }

  Answers Score(const std::vector<std::vector<int32_t>>& paths, bool word_ends) override {
    const AsExported guard;
    int64_t longest = 1;
    for (const auto& path : paths) longest = std::max<int64_t>(longest, path.size());
    const auto batch = static_cast<int64_t>(paths.size());
    const at::Tensor ids = at::zeros({batch, longest}, at::kLong);
    const at::Tensor mask = at::zeros({batch, longest}, at::kLong);
    for (int64_t row = 0; row < batch; ++row) {
      const auto length = static_cast<int64_t>(paths[row].size());
      ids[row].slice(0, 0, length).copy_(View(paths[row]));
      mask[row].slice(0, 0, length).fill_(1);
    }
    const at::Tensor logits = module_.forward({ids, mask}).toTensor().to(at::kFloat);
    Answers answers;
    for (int64_t row = 0; row < batch; ++row) {
      const auto length = static_cast<int64_t>(paths[row].size());
      const at::Tensor log_p = logits[row].slice(0, 0, length).log_softmax(1);
      if (!log_p.isfinite().all().item<bool>() && log_p.isnan().any().item<bool>()) {
        ThrowNotFinite();
      }
      const at::Tensor next = ids[row].slice(0, 1, length).unsqueeze(1);
      answers.log_probs.push_back(Floats(log_p.slice(0, 0, length - 1).gather(1, next)));
      if (word_ends) {
        const at::Tensor last = log_p[length - 1].slice(0, 0, begins_word_.numel());
        answers.word_ends.push_back(
            last.masked_fill(begins_word_.logical_not(), -INFINITY).logsumexp(0).item<float>());
      }
    }
    return answers;
  }

 private:
  torch::jit::Module module_;
  const ModelDescription description_;
  at::Tensor begins_word_;
};

// A forward of the plain form says how many words it knows.
int64_t VocabularyOf(torch::jit::Module& module, const std::string& path) {
  const AsExported guard;
  try {
    const at::Tensor ids = at::zeros({1, 2}, at::kLong);
    const at::Tensor logits = module.forward({ids, at::ones({1, 2}, at::kLong)}).toTensor();
    if (logits.dim() == 3 && logits.size(0) == 1 && logits.size(1) == 2) return logits.size(2);
  } catch (const std::exception& error) {
    throw ModelFileError(path +
                         " is not a causal language model (ids [B, T], mask [B, T]) -> "
                         "logits [B, T, vocabulary]: " +
                         error.what());
  }
  throw ModelFileError(path +
                       " is not a causal language model: forward(ids, mask) did not give "
                       "logits [B, T, vocabulary]");
}

}  // namespace

LoadedModel LoadTorchScript(const std::string& path, const ScorerOptions& options) {
  const CallersStateAside callers;
  const bool on_cpu = options.device == "cpu";
  if (on_cpu && options.kv_dtype != "auto" && options.kv_dtype != "float32") {
    throw std::invalid_argument("kv_dtype = \"" + options.kv_dtype +
                                "\"; on the CPU keys and values are kept in \"float32\"");
  }
  Compute compute = Compute::kFloat32;
  if (on_cpu) {
    compute = ComputeByName(options.compute);
  } else {
    OpenDevice(options.device);  // says so before a large file is read
  }
  const ModelFile file(path);
  LoadedModel loaded;
  loaded.bundle = ReadBundle(file);
  ModelDescription description = loaded.bundle.description;
  std::optional<torch::jit::Module> module = LoadModule(file, loaded.bundle.table);
  if (description.plain && !on_cpu) {
    throw std::invalid_argument("device = \"" + options.device + "\": " + path +
                                " is a plain model, which runs on the CPU only; export it with "
                                "tree attention, or use \"cpu\"");
  }
  if (description.plain && compute != Compute::kFloat32) {
    throw std::invalid_argument("compute = \"" + options.compute + "\": " + path +
                                " is a plain model, which computes in \"float32\"");
  }
  if (description.plain) {
    if (description.vocabulary_size == 0) description.vocabulary_size = VocabularyOf(*module, path);
    loaded.bundle.description = description;
    loaded.plain = std::make_unique<TorchScriptPlainLM>(std::move(*module), description);
  } else {
    loaded.bundle.description = description;
    StoredWeights weights(*module, description.weight_types, path);
    if (on_cpu) {
      loaded.tree = std::make_unique<TorchScriptLM>(std::move(*module), std::move(weights),
                                                    description, options.compute);
    } else {
      loaded.tree = DeviceLM(*module, std::move(weights), description,
                             {options.device, options.compute, options.kv_dtype});
    }
  }
  return loaded;
}

}  // namespace lmfusion
