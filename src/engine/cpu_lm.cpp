#include "engine/cpu_lm.h"

#include <ATen/ATen.h>

#include <functional>
#include <utility>

#include "engine/joined_operators.h"
#include "engine/packed_graph.h"
#include "kernels/threads/scratch.h"
#include "ops/packed_output.h"
#include "ops/torch_threads.h"

namespace lmfusion {
namespace {

// The CPU as a device: work is done when it is queued.
class Host final : public DeviceRuntime {
 public:
  c10::Device device() const override { return c10::kCPU; }
  int multiprocessors() const override { return 1; }
  int64_t free_bytes() const override { return kAutoCacheBytes; }
  void OnQueue(const std::function<void()>& work) override {
    const OnlyOurThreads threads(only_our_threads);
    work();
  }
  void Wait() override {}
  int Record(const std::function<void()>&) override { return -1; }
  void Replay(int) override {}

  // Torch's own products, where a model has any, keep their threads.
  bool only_our_threads = true;
};

at::Tensor View(const std::vector<int64_t>& values) {
  return at::from_blob(const_cast<int64_t*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::kLong);
}

at::Tensor View(const std::vector<int32_t>& values) {
  return at::from_blob(const_cast<int32_t*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::kInt);
}

class CpuEngine final : public TreeEngine {
 public:
  CpuEngine(torch::jit::Module module, StoredWeights weights, ModelDescription given,
            Compute compute, std::unique_ptr<Host> host)
      : TreeEngine(std::move(given), compute, SlotTypes(), std::move(host), /*spare_slots=*/0),
        module_(std::move(module)) {
    const OnlyOurThreads threads;
    packed_ = PackWeightsOf(module_, weights, compute);
    JoinOperators(module_);
    weight_bytes_ = packed_.bytes + weights.bytes();
    output_.weight = packed_.output;
    output_.scale = description().logit_scale;
    output_.softcap = description().logit_softcap;
    static_cast<Host&>(runtime()).only_our_threads = packed_.plain_linears == 0;
  }

  void AddTo(Stats* stats) const override {
    stats->weight_bytes = weight_bytes_;
    stats->scratch_bytes = ScratchBytes();
    stats->packed_linears = packed_.linears;
    stats->plain_linears = packed_.plain_linears;
    stats->fused_operators = packed_.fused_operators;
  }

 private:
  void RunOnce(const BatchPlan& plan) override {
    const auto segments = static_cast<int64_t>(plan.segments.size());
    const at::Tensor segment_table = at::from_blob(
        const_cast<BatchPlan::Segment*>(plan.segments.data()), {segments, 5}, at::kInt);
    const at::Tensor slots = View(plan.slots);
    KeepOnHost(module_
                   .forward({View(plan.tokens), View(plan.positions), slots, segment_table,
                             View(plan.segment_slots), kv()})
                   .toTensor(),
               slots);
  }

  at::Tensor Normalizers(const at::Tensor& rows) override { return LogNormalizer(rows, output_); }
  std::pair<at::Tensor, at::Tensor> NormalizersOfAllAnd(const at::Tensor& rows,
                                                        const at::Tensor& subset) override {
    return LogNormalizers(rows, output_, subset);
  }
  at::Tensor Logits(const at::Tensor& hidden, const at::Tensor& slots,
                    const at::Tensor& tokens) override {
    return TokenLogits(hidden, slots, tokens, output_);
  }

  torch::jit::Module module_;
  PackedGraph packed_;
  int64_t weight_bytes_ = 0;
  PackedOutputLayer output_;
};

}  // namespace

std::unique_ptr<TreeEngine> CpuLM(torch::jit::Module module, StoredWeights weights,
                                  ModelDescription description, Compute compute) {
  return std::make_unique<CpuEngine>(std::move(module), std::move(weights), std::move(description),
                                     compute, std::make_unique<Host>());
}

}  // namespace lmfusion
