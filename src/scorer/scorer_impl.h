#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "base/fork_guard.h"
#include "cache/path_scorer.h"
#include "lmfusion/scorer.h"
#include "scorer/call_counters.h"
#include "text/stage/text_stage.h"

namespace lmfusion {

// What a scorer has: the text stage makes token paths of texts, the path scorer scores them, and a
// ScorerCall (scorer/call.h) leads texts through both.
struct LMFusionScorer::Impl {
  Impl(const std::string& path, ScorerOptions given);

  // Throw std::invalid_argument where there is no tokenizer.
  const TextStage& Text() const;
  const TextStage& TextAsGiven() const;  // without casing

  // Of the paths and of the texts of a namespace; null: all.
  void ClearCache(const std::string* cache_namespace);

  // Whether the call that asks is one that selfcheck_every means; counts calls.
  bool SelfcheckIsDue() {
    const auto every = static_cast<uint64_t>(options.selfcheck_every);
    return every > 0 && (1 + calls_scored_.fetch_add(1)) % every == 0;
  }

  Stats CountedSinceReset() const;
  void ResetCounters();

  ScorerOptions options;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<TextStage> text_stage;
  std::unique_ptr<TextStage> text_as_given;
  std::unique_ptr<PathScorer> path_scorer;
  bool shares_prefixes = false;  // between calls
  CallCounters counters;
  // Of every method that takes a lock of the text stage or of the counters (Note [Fork]).
  mutable ForkGuard fork_guard;

 private:
  Stats CountedSinceMade() const;

  std::atomic<uint64_t> calls_scored_{0};
  mutable std::mutex reset_mutex_;
  Stats at_reset_;  // CountedSinceMade() when the counters were reset last
};

}  // namespace lmfusion
