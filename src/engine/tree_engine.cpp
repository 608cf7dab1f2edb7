#include "engine/tree_engine.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "engine/attention_calls.h"
#include "engine/slot_rows.h"
#include "engine/slot_types.h"
#include "ops/float_rows.h"

namespace lmfusion {
namespace {

int64_t BytesOf(at::ScalarType type) { return static_cast<int64_t>(c10::elementSize(type)); }

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

BatchPlan OneToken(int64_t token) {
  BatchPlan plan;
  plan.tokens = {token};
  plan.positions = {0};
  plan.slots = {0};
  plan.segments = {{0, 1, 0, 1, 0}};
  plan.segment_slots = {0};
  return plan;
}

}  // namespace

at::Tensor MaskOf(const std::vector<bool>& tokens) {
  at::Tensor mask = at::empty({static_cast<int64_t>(tokens.size())}, at::kBool);
  std::copy(tokens.begin(), tokens.end(), mask.data_ptr<bool>());
  return mask;
}

void ThrowNotFinite() {
  throw NumericalError(
      "the model gave a value that is not finite (NaN or infinity); nothing of this call was kept. "
      "If it comes again with other texts, the weights or the compute type are the cause");
}

TreeEngine::TreeEngine(ModelDescription description, Compute compute, SlotTypes types,
                       std::unique_ptr<DeviceRuntime> runtime, int64_t spare_slots)
    : description_(std::move(description)),
      compute_(compute),
      types_(types),
      runtime_(std::move(runtime)),
      device_(runtime_->device()),
      spare_slots_(spare_slots) {
  const AsExported guard;
  Queue("a flag", [&] { finite_ = at::ones({1}, at::TensorOptions(device_).dtype(at::kBool)); });
}

TreeEngine::~TreeEngine() { WaitQuietly(); }

void TreeEngine::Wait() {
  RunModel(description_.file, device_.str(), "its work", [&] { runtime_->Wait(); });
}

void TreeEngine::WaitQuietly() noexcept {
  try {
    runtime_->Wait();
  } catch (...) {  // whoever asked for the work is told when it is asked for its results
  }
}

int64_t TreeEngine::slot_bytes() const {
  return SlotBytes(description_, BytesOf(types_.kv), BytesOf(types_.hidden));
}

std::string TreeEngine::SlotFormat() const {
  return std::string("compute ") + Name(compute_) + ", keys and values " + NameOf(types_.kv) +
         ", hidden states " + NameOf(types_.hidden);
}

void TreeEngine::Reserve(int64_t slots) {
  const AsExported guard;
  const ModelDescription& d = description_;
  const auto too_large = [&](const std::string& reason) {
    return CacheBudgetError("kv_cache_bytes is too large: " + std::to_string(slots) +
                            " tokens of " + std::to_string(slot_bytes()) +
                            " bytes each cannot be reserved (" + reason + "); give it less");
  };
  if (slots > std::numeric_limits<SlotId>::max() - spare_slots_) throw too_large("too many tokens");
  const int64_t all = slots + spare_slots_;
  spare_slot_ = static_cast<SlotId>(slots);
  const at::TensorOptions options(device_);
  try {  // on the host nothing is touched before it is used: the system gives pages as slots fill
    Queue("a cache", [&] {
      kv_ = at::empty({d.layers, 2, all, d.kv_heads, d.head_dim}, options.dtype(types_.kv));
      hidden_ = at::empty({all, d.hidden_size}, options.dtype(types_.hidden));
    });
  } catch (const OutOfDeviceMemory& error) {
    throw too_large(error.what());
  } catch (const std::bad_alloc&) {
    throw too_large("the host has too little memory");
  }
}

void TreeEngine::SetWordBeginnings(const std::vector<bool>& begins_word) {
  const AsExported guard;
  begins_word_ = MaskOf(begins_word).to(device_);
}

void TreeEngine::Probe() {
  const AsExported guard;
  Reserve(1);
  const BatchPlan plan = OneToken(std::max<int32_t>(description_.bos_token_id, 0));
  Queue("a token", [&] {
    const AttentionCalls attentions;
    RunOnce(plan);
    attentions.Check(description_);
    Normalizers(hidden_.narrow(0, 0, 1));  // a matrix of another shape would say so
  });
  Wait();
  ForgetFinite();
  kv_ = hidden_ = at::Tensor();
}

void TreeEngine::Forward(const BatchPlan& plan) {
  const AsExported guard;
  try {
    Queue("a batch", [&] { Run(plan); });
  } catch (const OutOfDeviceMemory&) {
    if (plan.size() == 1) ForgetFinite();  // a smaller batch is not possible
    throw;
  } catch (...) {
    ForgetFinite();
    throw;
  }
}

void TreeEngine::ForgetFinite() noexcept {
  try {
    runtime_->OnQueue([&] { finite_.fill_(true); });
  } catch (...) {  // a device that does not even do that gives no more answers
  }
}

void TreeEngine::CheckHidden(const at::Tensor& hidden, const at::Tensor& slots) const {
  if (hidden.dim() != 2 || hidden.size(0) != slots.size(0) ||
      hidden.size(1) != description_.hidden_size) {
    throw ModelFileError(description_.file + ": lmfusion.json: hidden_size: " +
                         std::to_string(description_.hidden_size) +
                         ", but the graph gives hidden " + "states " + at::str(hidden.sizes()) +
                         " for " + std::to_string(slots.size(0)) + " tokens");
  }
}

void TreeEngine::Keep(const at::Tensor& hidden, const at::Tensor& slots) {
  CheckHidden(hidden, slots);
  finite_.logical_and_(hidden.isfinite().all());
  hidden_.index_copy_(0, slots.to(at::kLong), hidden.to(types_.hidden));
}

void TreeEngine::KeepOnHost(const at::Tensor& hidden, const at::Tensor& slots) {
  CheckHidden(hidden, slots);
  const at::Tensor floats = hidden.to(at::kFloat);
  if (!StoreRows(floats, slots, hidden_)) finite_.fill_(false);
}

OutputAnswers TreeEngine::Answer(const OutputQuestions& questions) {
  try {
    return AnswerAtOnce(questions);
  } catch (const OutOfDeviceMemory&) {
    if (std::max(questions.normalizer_slots.size(), questions.logit_slots.size()) < 2) {
      ForgetFinite();
      throw;
    }
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

OutputAnswers TreeEngine::AnswerAtOnce(const OutputQuestions& questions) {
  const AsExported guard;
  const auto normalizers = static_cast<int64_t>(questions.normalizer_slots.size());
  const auto logits = static_cast<int64_t>(questions.logit_slots.size());
  const bool word_ends = questions.word_ends && normalizers > 0;
  at::Tensor results;
  Queue("the output layer", [&] { results = Ask(questions); });
  Wait();  // the only time
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
at::Tensor TreeEngine::Ask(const OutputQuestions& questions) {
  const auto normalizers = static_cast<int64_t>(questions.normalizer_slots.size());
  const auto logits = static_cast<int64_t>(questions.logit_slots.size());
  const bool pinned = device_.is_cuda();  // the device copies from such memory by itself
  const at::Tensor asked =
      at::empty({normalizers + 2 * logits}, at::TensorOptions(at::kInt).pinned_memory(pinned));
  int32_t* data = asked.data_ptr<int32_t>();
  data = std::copy(questions.normalizer_slots.begin(), questions.normalizer_slots.end(), data);
  data = std::copy(questions.logit_slots.begin(), questions.logit_slots.end(), data);
  std::copy(questions.logit_tokens.begin(), questions.logit_tokens.end(), data);
  const at::Tensor indices = asked.to(device_, /*non_blocking=*/true).to(at::kLong);
  std::vector<at::Tensor> parts = {finite_.to(at::kFloat)};
  if (normalizers > 0) {
    const at::Tensor rows = hidden_.index_select(0, indices.narrow(0, 0, normalizers));
    if (questions.word_ends) {
      auto [all, some] = NormalizersOfAllAnd(rows, begins_word_);
      parts.push_back(std::move(all));
      parts.push_back(std::move(some));
    } else {
      parts.push_back(Normalizers(rows));
    }
  }
  if (logits > 0) {
    parts.push_back(Logits(hidden_, indices.narrow(0, normalizers, logits),
                           indices.narrow(0, normalizers + logits, logits)));
  }
  const at::Tensor all = at::cat(parts);
  const at::Tensor host =
      at::empty(all.sizes(), at::TensorOptions(at::kFloat).pinned_memory(pinned));
  host.copy_(all, /*non_blocking=*/true);
  finite_.fill_(true);  // last: what lacked memory is asked again
  return host;
}

void TreeEngine::ReadSlots(const std::vector<SlotId>& slots, char* bytes) {
  const AsExported guard;
  Queue("a snapshot", [&] { ReadSlotRows(kv_, hidden_, slots, bytes); });
}

void TreeEngine::WriteSlots(const std::vector<SlotId>& slots, const char* bytes) {
  const AsExported guard;
  Queue("a snapshot", [&] { WriteSlotRows(kv_, hidden_, slots, bytes); });
  Wait();
}

}  // namespace lmfusion
