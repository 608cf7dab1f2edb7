#pragma once

#include <cstdint>
#include <vector>

#include "tree/causal_lm.h"

namespace lmfusion {

// A causal language model without a cache. Not thread safe.
class PlainLM {
 public:
  virtual ~PlainLM() = default;

  virtual const ModelDescription& description() const = 0;

  // Which tokens begin a word or end the text: [vocabulary]. Once, before word_ends is asked for.
  virtual void SetWordBeginnings(const std::vector<bool>& begins_word) = 0;

  struct Answers {
    std::vector<std::vector<float>> log_probs;  // [paths][tokens after the first], nats
    std::vector<float> word_ends;  // [paths] log p(a word ends after the path); empty unless asked
  };
  // One padded batch; every path has a token at least. Throws NumericalError.
  virtual Answers Score(const std::vector<std::vector<int32_t>>& paths, bool word_ends) = 0;
};

}  // namespace lmfusion
