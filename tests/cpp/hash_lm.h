#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "tree/causal_lm.h"

namespace lmfusion {

// A language model whose next-token distribution depends on every token before it, and which can
// be computed by hand: the oracle of the tests of trees, plans and caches.
struct HashModel {
  static constexpr int32_t kVocabulary = 50;

  static uint64_t Extend(uint64_t hash, int32_t token) {
    hash ^= static_cast<uint64_t>(token) + 0x9e3779b97f4a7c15u + (hash << 6) + (hash >> 2);
    return hash * 0xff51afd7ed558ccdu;
  }
  static float Logit(uint64_t hash, int32_t token) {
    return static_cast<float>(Extend(hash, token + 1000) >> 40) / (1 << 22) - 2;
  }
  static bool BeginsWord(int32_t token) { return token % 3 == 0; }

  // log of the sum of exp(logit) over all tokens, or over those that begin a word.
  static double LogSum(uint64_t hash, bool only_beginnings) {
    double sum = 0;
    for (int32_t token = 0; token < kVocabulary; ++token) {
      if (!only_beginnings || BeginsWord(token)) sum += std::exp(double{Logit(hash, token)});
    }
    return std::log(sum);
  }

  static uint64_t Hash(const std::vector<int32_t>& path, size_t size) {
    uint64_t hash = 1;
    for (size_t i = 0; i < size; ++i) hash = Extend(hash, path[i]);
    return hash;
  }
  // log p(token | the path of that hash).
  static double LogProbAfter(uint64_t hash, int32_t token) {
    return Logit(hash, token) - LogSum(hash, false);
  }
  // log p(path[i] | path[0, i)).
  static double LogProb(const std::vector<int32_t>& path, size_t i) {
    return LogProbAfter(Hash(path, i), path[i]);
  }
  static double WordEnd(const std::vector<int32_t>& path) {
    const uint64_t hash = Hash(path, path.size());
    return LogSum(hash, true) - LogSum(hash, false);
  }
};

// The same behind CausalLM. Knows of a token only what the plan lets it see: the slots of its
// segments.
class HashLM : public CausalLM {
 public:
  HashLM() {
    description_.vocabulary_size = HashModel::kVocabulary;
    description_.eos_token_id = 0;
  }
  const ModelDescription& description() const override { return description_; }
  int64_t slot_bytes() const override { return 100; }
  void Reserve(int64_t slots) override { slots_.resize(slots); }
  void SetWordBeginnings(const std::vector<bool>&) override {}

  void Forward(const BatchPlan& plan) override {
    ++forwards;
    for (int64_t t = 0; t < plan.size(); ++t) {
      slots_.at(plan.slots[t]) = {static_cast<int32_t>(plan.tokens[t]), true, 0};
    }
    for (int64_t t = 0; t < plan.size(); ++t) {
      seen_.assign(plan.positions[t] + 1, kUnseen);
      int64_t count = 0;
      for (const BatchPlan::Segment& segment : plan.segments) {
        if (t < segment.token_begin || t >= segment.token_end) continue;
        for (int32_t key = segment.key_begin; key < segment.key_end; ++key) {
          const int64_t position = segment.first_position + key - segment.key_begin;
          if (position > plan.positions[t]) continue;
          const Slot& slot = slots_.at(plan.segment_slots[key]);
          if (!slot.filled) throw std::logic_error("a slot is read before it is filled");
          if (std::exchange(seen_.at(position), slot.token) != kUnseen) {
            throw std::logic_error("a position is seen twice");
          }
          ++count;
        }
      }
      if (count != plan.positions[t] + 1) throw std::logic_error("an ancestor is not seen");
      uint64_t hash = 1;
      for (const int32_t token : seen_) hash = HashModel::Extend(hash, token);
      slots_[plan.slots[t]].hash = hash;
      if (static_cast<int32_t>(plan.tokens[t]) == poisoned_token) finite_ = false;
    }
  }

  OutputAnswers Answer(const OutputQuestions& questions) override {
    if (!std::exchange(finite_, true)) throw NumericalError("not finite");
    OutputAnswers answers;
    normalizers_asked += static_cast<int>(questions.normalizer_slots.size());
    logits_asked += static_cast<int>(questions.logit_slots.size());
    for (const SlotId slot : questions.normalizer_slots) {
      const double all = HashModel::LogSum(slots_.at(slot).hash, false);
      answers.normalizers.push_back(static_cast<float>(all));
      if (!questions.word_ends) continue;
      answers.word_end_log_probs.push_back(
          static_cast<float>(HashModel::LogSum(slots_[slot].hash, true) - all));
    }
    for (size_t i = 0; i < questions.logit_slots.size(); ++i) {
      answers.logits.push_back(
          HashModel::Logit(slots_.at(questions.logit_slots[i]).hash, questions.logit_tokens[i]));
    }
    return answers;
  }

  void ReadSlots(const std::vector<SlotId>& slots, char* bytes) override {
    for (size_t i = 0; i < slots.size(); ++i) {
      std::memset(bytes + i * slot_bytes(), 0, slot_bytes());
      std::memcpy(bytes + i * slot_bytes(), &slots_.at(slots[i]), sizeof(Slot));
    }
  }
  void WriteSlots(const std::vector<SlotId>& slots, const char* bytes) override {
    for (size_t i = 0; i < slots.size(); ++i) {
      std::memcpy(&slots_.at(slots[i]), bytes + i * slot_bytes(), sizeof(Slot));
    }
  }
  std::string SlotFormat() const override { return slot_format; }

  int forwards = 0, normalizers_asked = 0, logits_asked = 0;
  std::string slot_format = "a token and a hash";
  int32_t poisoned_token = -1;  // computing it gives NaN

 private:
  struct Slot {  // without padding, since its bytes are written to files
    int32_t token = -1;
    uint32_t filled = false;
    uint64_t hash = 0;
  };
  static constexpr int32_t kUnseen = -1;
  ModelDescription description_;
  std::vector<Slot> slots_;
  std::vector<int32_t> seen_;  // by one token: the tokens at positions 0, 1, ...
  bool finite_ = true;
};

}  // namespace lmfusion
