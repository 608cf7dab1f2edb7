#include "engine/device_lm.h"

#include <ATen/ATen.h>

#include <atomic>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/device_module.h"
#include "engine/device_runtime.h"
#include "engine/slot_types.h"
#include "engine/staged_plan.h"

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
constexpr int64_t kRecordedKeys = int64_t{1} << 15;  // of all query tiles, half a megabyte
constexpr size_t kMostRecordings = 64;
constexpr double kAutoShare = 0.5;  // of the free memory, for the cache

at::ScalarType ActivationType(Compute compute) {
  if (compute == Compute::kFloat32) return at::kFloat;
  return compute == Compute::kFloat16 ? at::kHalf : at::kBFloat16;
}

SlotTypes TypesOf(const DeviceLMOptions& options) {
  SlotTypes types;
  types.hidden = ActivationType(options.compute);
  types.kv = options.kv_dtype == "auto" ? types.hidden : SlotTypeByName(options.kv_dtype);
  return types;
}

class DeviceEngine final : public TreeEngine {
 public:
  DeviceEngine(const torch::jit::Module& module, StoredWeights weights, ModelDescription given,
               const DeviceLMOptions& options, std::unique_ptr<DeviceRuntime> runtime_of_device)
      : TreeEngine(std::move(given), options.compute, TypesOf(options),
                   std::move(runtime_of_device), /*spare_slots=*/1) {  // for padding tokens
    const AsExported guard;
    Queue("the weights",
          [&] { module_ = MoveToDevice(module, weights, device(), options.compute); });
    Wait();
    module_.output.scale = description().logit_scale;
    module_.output.softcap = description().logit_softcap;
    tiles_.group = static_cast<int>(description().q_heads / description().kv_heads);
    tiles_.kv_heads = static_cast<int>(description().kv_heads);
    tiles_.wanted_tiles = 2 * runtime().multiprocessors();
  }

  ~DeviceEngine() override { WaitQuietly(); }  // before the buffers go

  int64_t AutoCacheBytes() const override {
    return static_cast<int64_t>(kAutoShare * static_cast<double>(runtime().free_bytes()));
  }

  void AddTo(Stats* stats) const override {
    stats->tokens_padded += padded_;
    stats->forwards_replayed += replayed_;
    stats->weight_bytes = module_.weight_bytes;
  }

 private:
  using Size = std::pair<int64_t, int64_t>;  // tokens, tiles
  struct Recorded {
    at::Tensor buffer;
    PlanLayout layout;
    int recording = -1;
  };

  void RunOnce(const BatchPlan& plan) override { RunStaged(Stage(plan, plan.size(), false)); }

  void Run(const BatchPlan& plan) override {
    const bool may_record = recording_ && plan.size() <= kRecordedTokens;
    const int64_t tokens = may_record ? PaddedSize(plan.size()) : plan.size();
    const StagedPlan staged = Stage(plan, tokens, may_record);
    if (may_record && staged.layout.keys <= kRecordedKeys) {
      RunRecorded(staged);
    } else {
      RunStaged(staged);
    }
    padded_ += static_cast<uint64_t>(tokens - plan.size());
  }

  StagedPlan Stage(const BatchPlan& plan, int64_t tokens, bool pad_tiles) const {
    return StagePlan(plan, tiles_, tokens, pad_tiles, spare_slot(), device().is_cuda());
  }

  // Queues one forward pass over the plan in `plan`.
  void RunGraph(const PlanTensors& plan) {
    torch::jit::Stack stack = {plan.tokens, plan.positions, plan.slots,
                               plan.tiles,  plan.keys,      kv()};
    module_.forward->run(stack);
    Keep(stack.front().toTensor(), plan.slots);
  }

  void RunStaged(const StagedPlan& staged) {
    const at::Tensor buffer = staged.buffer.to(device(), /*non_blocking=*/true);
    RunGraph(ViewsOf(buffer, staged.layout));
  }

  void RunRecorded(const StagedPlan& staged) {
    const Size size(staged.layout.tokens, staged.layout.tiles);
    auto found = recorded_.find(size);
    const bool is_new = found == recorded_.end();
    if (is_new) {
      if (recorded_.size() == kMostRecordings) {
        return RunStaged(staged);
      }
      Recorded made;
      made.layout = staged.layout;
      made.layout.keys = kRecordedKeys;
      made.buffer = at::zeros({made.layout.size()}, at::TensorOptions(device()).dtype(at::kInt));
      found = recorded_.emplace(size, std::move(made)).first;
    }
    Recorded& recorded = found->second;
    recorded.buffer.narrow(0, 0, staged.buffer.numel()).copy_(staged.buffer, /*non_blocking=*/true);
    if (!is_new && recording_ && recorded.recording < 0) {
      const PlanTensors views = ViewsOf(recorded.buffer, recorded.layout);
      recorded.recording = runtime().Record([this, views] {
        const AsExported guard;
        RunGraph(views);
      });
      recording_ = recorded.recording >= 0;
    }
    if (recorded.recording >= 0) {
      runtime().Replay(recorded.recording);
      ++replayed_;
    } else {
      RunGraph(ViewsOf(recorded.buffer, recorded.layout));
    }
  }

  at::Tensor Normalizers(const at::Tensor& rows) override {
    return LogNormalizer(rows, module_.output);
  }
  std::pair<at::Tensor, at::Tensor> NormalizersOfAllAnd(const at::Tensor& rows,
                                                        const at::Tensor& subset) override {
    return LogNormalizers(rows, module_.output, subset);
  }
  at::Tensor Logits(const at::Tensor& hidden, const at::Tensor& slots,
                    const at::Tensor& tokens) override {
    return TokenLogits(hidden.index_select(0, slots), tokens, module_.output);
  }

  DeviceModule module_;
  QueryTileOptions tiles_;
  std::map<Size, Recorded> recorded_;
  bool recording_ = true;
  std::atomic<uint64_t> padded_{0}, replayed_{0};
};

}  // namespace

std::unique_ptr<TreeEngine> DeviceLM(const torch::jit::Module& module, StoredWeights weights,
                                     ModelDescription description, const DeviceLMOptions& options) {
  return DeviceLM(module, std::move(weights), std::move(description), options,
                  OpenDevice(options.device));
}

std::unique_ptr<TreeEngine> DeviceLM(const torch::jit::Module& module, StoredWeights weights,
                                     ModelDescription description, const DeviceLMOptions& options,
                                     std::unique_ptr<DeviceRuntime> runtime) {
  return std::make_unique<DeviceEngine>(module, std::move(weights), std::move(description), options,
                                        std::move(runtime));
}

void CheckDeviceOptions(const DeviceLMOptions& options) {
  TypesOf(options);
  OpenDevice(options.device);
}

}  // namespace lmfusion
