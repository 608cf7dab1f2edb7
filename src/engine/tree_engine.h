#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bundle/description.h"
#include "engine/callers_state.h"
#include "engine/device_runtime.h"
#include "engine/torch_errors.h"
#include "kernels/linear/compute.h"
#include "tree/causal_lm.h"

namespace lmfusion {

// TorchScript's profiling executor specialises a graph anew for many batch sizes (seconds each);
// while one of these lives, a graph runs as it was exported, whatever the caller told torch, and
// nothing is recorded for gradients.
class AsExported {
  CallersStateAside callers_;
  torch::jit::GraphOptimizerEnabledGuard guard_{false};
  c10::InferenceMode inference_;
};

// [vocabulary] bool on the host.
at::Tensor MaskOf(const std::vector<bool>& tokens);

[[noreturn]] void ThrowNotFinite();

// The types of what slots hold.
struct SlotTypes {
  at::ScalarType kv = at::kFloat;
  at::ScalarType hidden = at::kFloat;
};

// What engines share whose slots are torch tensors, on whatever device: the pools of keys, values
// and hidden states, how the output layer is asked, whether all was finite, and what errors become.
// A subclass runs the graph and the output layer.
class TreeEngine : public CausalLM {
 public:
  ~TreeEngine() override;

  const ModelDescription& description() const final { return description_; }
  int64_t slot_bytes() const final;
  std::string SlotFormat() const final;
  void Reserve(int64_t slots) final;
  void SetWordBeginnings(const std::vector<bool>& begins_word) final;
  void Forward(const BatchPlan& plan) final;
  OutputAnswers Answer(const OutputQuestions& questions) final;
  void ReadSlots(const std::vector<SlotId>& slots, char* bytes) final;
  void WriteSlots(const std::vector<SlotId>& slots, const char* bytes) final;

  // Computes one token, so that a graph that does not run, or does not fit the description (sizes,
  // layers, windows, heads), is found when a model is loaded. Before Reserve. Throws
  // ModelFileError.
  void Probe();

 protected:
  // spare_slots: that the pools have beyond those reserved; the first is spare_slot().
  TreeEngine(ModelDescription description, Compute compute, SlotTypes types,
             std::unique_ptr<DeviceRuntime> runtime, int64_t spare_slots);

  // Queues one forward pass, which writes keys and values into kv() and ends in Keep.
  virtual void RunOnce(const BatchPlan& plan) = 0;
  // The same; may remember how, so that it is faster the next time.
  virtual void Run(const BatchPlan& plan) { RunOnce(plan); }

  // The output layer. rows: hidden states [N, hidden_size]; results [N] float32, see output_ops.h.
  virtual at::Tensor Normalizers(const at::Tensor& rows) = 0;
  virtual std::pair<at::Tensor, at::Tensor> NormalizersOfAllAnd(const at::Tensor& rows,
                                                                const at::Tensor& subset) = 0;
  // Of hidden[slots[i]] and tokens[i]; slots, tokens [M] int64.
  virtual at::Tensor Logits(const at::Tensor& hidden, const at::Tensor& slots,
                            const at::Tensor& tokens) = 0;

  // Queues the end of a pass: hidden [tokens, hidden_size] into slots [tokens] int32.
  void Keep(const at::Tensor& hidden, const at::Tensor& slots);
  // The same on the CPU, at once.
  void KeepOnHost(const at::Tensor& hidden, const at::Tensor& slots);

  // Queues `work`; see RunModel. what: "a batch".
  template <typename Work>
  void Queue(const char* what, const Work& work) {
    RunModel(description_.file, device_.str(), what, [&] { runtime_->OnQueue(work); });
  }
  // Returns when all that was queued is done; throws as Queue. The other one never throws.
  void Wait();
  void WaitQuietly() noexcept;

  DeviceRuntime& runtime() { return *runtime_; }
  const DeviceRuntime& runtime() const { return *runtime_; }
  const c10::Device& device() const { return device_; }
  const at::Tensor& kv() const { return kv_; }
  SlotId spare_slot() const { return spare_slot_; }

 private:
  void CheckHidden(const at::Tensor& hidden, const at::Tensor& slots) const;
  OutputAnswers AnswerAtOnce(const OutputQuestions& questions);
  at::Tensor Ask(const OutputQuestions& questions);
  void ForgetFinite() noexcept;

  const ModelDescription description_;
  const Compute compute_;
  const SlotTypes types_;
  const std::unique_ptr<DeviceRuntime> runtime_;
  const c10::Device device_;
  const int64_t spare_slots_;
  at::Tensor kv_;           // [layers, 2, slots + spare, kv_heads, head_dim]
  at::Tensor hidden_;       // [slots + spare, hidden_size]
  at::Tensor begins_word_;  // [vocabulary] bool
  at::Tensor finite_;       // [1] bool, of all passes since the last answer
  SlotId spare_slot_ = 0;
};

}  // namespace lmfusion
