#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "hash_lm.h"
#include "tree/plain_lm.h"

namespace lmfusion {

// A gate in front of a model: whoever comes waits until it is opened.
class Gate {
 public:
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    reached_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
  }
  void AwaitSomeone() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return reached_; });
  }
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false, open_ = false;
};

class GatedLM final : public HashLM {
 public:
  explicit GatedLM(Gate* gate) : gate_(gate) {}
  void Forward(const BatchPlan& plan) override {
    gate_->Pass();
    HashLM::Forward(plan);
  }

 private:
  Gate* const gate_;
};

class GatedPlainLM final : public PlainLM {
 public:
  explicit GatedPlainLM(Gate* gate) : gate_(gate) {
    description_.vocabulary_size = HashModel::kVocabulary;
  }
  const ModelDescription& description() const override { return description_; }
  void SetWordBeginnings(const std::vector<bool>&) override {}
  Answers Score(const std::vector<std::vector<int32_t>>& paths, bool) override {
    gate_->Pass();
    Answers answers;
    for (const std::vector<int32_t>& path : paths) {
      answers.log_probs.emplace_back();
      for (size_t i = 1; i < path.size(); ++i) {
        answers.log_probs.back().push_back(static_cast<float>(HashModel::LogProb(path, i)));
      }
    }
    return answers;
  }

 private:
  Gate* const gate_;
  ModelDescription description_;
};

}  // namespace lmfusion
