#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bundle/description.h"
#include "lmfusion/errors.h"
#include "lmfusion/stats.h"
#include "tree/batch_plan.h"

namespace lmfusion {

// The questions that one piece of work asks of hidden states that slots hold.
struct OutputQuestions {
  std::vector<SlotId> normalizer_slots;  // [N]
  std::vector<SlotId> logit_slots;       // [M]
  std::vector<int32_t> logit_tokens;     // [M]
  bool word_ends = false;                // fill word_end_log_probs
};
struct OutputAnswers {
  std::vector<float> normalizers;         // [N] log-sum-exp of the logits, nats
  std::vector<float> word_end_log_probs;  // [N] log p(next token begins a word or ends the text)
  std::vector<float> logits;              // [M]
};

// Bytes of a cache on the host where nobody says how many.
constexpr int64_t kAutoCacheBytes = int64_t{1} << 30;

// The device has too little memory for a batch; nothing of it was kept. A smaller one may fit.
class OutOfDeviceMemory : public Error {
  using Error::Error;
};

// A causal language model that fills and reads the slots of token-tree nodes. Not thread safe.
class CausalLM {
 public:
  virtual ~CausalLM() = default;

  virtual const ModelDescription& description() const = 0;

  // Bytes kept per slot: keys, values, hidden state.
  virtual int64_t slot_bytes() const = 0;
  // Bytes of the cache where the caller names none.
  virtual int64_t AutoCacheBytes() const { return kAutoCacheBytes; }
  // Makes room for slots 0..slots-1, once, before the first Forward. Throws CacheBudgetError where
  // there is not so much memory.
  virtual void Reserve(int64_t slots) = 0;

  // Which tokens begin a word or end the text: [vocabulary]. Once, before word_ends is asked for.
  virtual void SetWordBeginnings(const std::vector<bool>& begins_word) = 0;

  // Computes the plan's tokens into their slots. May return before the work is done. Throws
  // OutOfDeviceMemory: nothing of this plan was kept, and a smaller one may follow. After any other
  // error, or that of a plan of one token, the slots of every Forward since the last Answer hold
  // nothing of use, and later calls know nothing of it. Throws ModelFileError where the model's own
  // code fails.
  virtual void Forward(const BatchPlan& plan) = 0;

  // Throws NumericalError if any value since the last Answer was not finite; then the slots of
  // every Forward since hold nothing of use.
  virtual OutputAnswers Answer(const OutputQuestions& questions) = 0;

  // What slots hold, slot_bytes() each, in the order given: for a model of the same description and
  // the same SlotFormat() only. Waits for what Forward began.
  virtual void ReadSlots(const std::vector<SlotId>& slots, char* bytes) = 0;
  virtual void WriteSlots(const std::vector<SlotId>& slots, const char* bytes) = 0;
  // The types that decide what a slot holds, for people too.
  virtual std::string SlotFormat() const = 0;

  // Adds this model's counters to `stats`; from any thread.
  virtual void AddTo(Stats*) const {}
};

}  // namespace lmfusion
