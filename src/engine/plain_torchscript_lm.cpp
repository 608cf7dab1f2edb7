#include "engine/plain_torchscript_lm.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "engine/torch_errors.h"
#include "engine/tree_engine.h"
#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

at::Tensor View(const std::vector<int32_t>& values) {
  return at::from_blob(const_cast<int32_t*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::kInt);
}

std::vector<float> Floats(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kCPU, at::kFloat).contiguous();
  return {values.data_ptr<float>(), values.data_ptr<float>() + values.numel()};
}

class PlainEngine final : public PlainLM {
 public:
  PlainEngine(torch::jit::Module module, ModelDescription description)
      : module_(std::move(module)), description_(std::move(description)) {
    const int64_t vocabulary =
        Logits(at::zeros({1, 1}, at::kLong), at::ones({1, 1}, at::kLong)).size(2);
    if (description_.vocabulary_size == 0) description_.vocabulary_size = vocabulary;
    if (description_.vocabulary_size != vocabulary) {
      throw ModelFileError(description_.file + ": lmfusion.json: vocabulary_size: " +
                           std::to_string(description_.vocabulary_size) + ", but there are " +
                           std::to_string(vocabulary) + " logits");
    }
  }

  const ModelDescription& description() const override { return description_; }

  void SetWordBeginnings(const std::vector<bool>& begins_word) override {
    const AsExported guard;
    begins_word_ = MaskOf(begins_word);
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
    const at::Tensor logits = Logits(ids, mask);
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
  at::Tensor Logits(const at::Tensor& ids, const at::Tensor& mask) {
    const AsExported guard;
    const at::Tensor logits = RunModel(description_.file, "cpu", "a batch", [&] {
      return module_.forward({ids, mask}).toTensor().to(at::kFloat);
    });
    if (logits.dim() == 3 && logits.size(0) == ids.size(0) && logits.size(1) == ids.size(1)) {
      return logits;
    }
    throw ModelFileError(description_.file +
                         " is not a causal language model (ids [B, T], mask "
                         "[B, T]) -> logits [B, T, vocabulary]: it gave " +
                         at::str(logits.sizes()));
  }

  torch::jit::Module module_;
  ModelDescription description_;
  at::Tensor begins_word_;
};

}  // namespace

std::unique_ptr<PlainLM> PlainTorchScriptLM(torch::jit::Module module,
                                            ModelDescription description) {
  return std::make_unique<PlainEngine>(std::move(module), std::move(description));
}

}  // namespace lmfusion
