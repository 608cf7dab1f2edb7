#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lmfusion/options.h"
#include "lmfusion/stats.h"
#include "model/causal_lm.h"
#include "token_paths.h"

namespace lmfusion {

struct PathScorerOptions {
  Mode mode = Mode::kTree;
  int64_t max_batch_tokens = 512;
  int64_t kv_cache_bytes = int64_t{1} << 30;
};

// Log-probabilities of token paths: the tree, the plans, the model and the cache meet here, and
// nothing here knows of texts. Thread safe; calls that wait for each other run as one.
class PathScorer {
 public:
  PathScorer(std::unique_ptr<CausalLM> model, PathScorerOptions options);
  ~PathScorer();

  // Throws CacheBudgetError, NumericalError, std::invalid_argument (a token that is not in the
  // vocabulary, a path that is too long); then nothing is kept of what was not right.
  // scored_reused: [paths][tokens before the last], whether the cache held them; may be null.
  PathScores Score(const TokenPaths& paths, const std::string& cache_namespace,
                   std::vector<std::vector<bool>>* reused = nullptr);

  const ModelDescription& description() const;
  // Adds this scorer's counters to `stats`.
  void AddTo(Stats* stats) const;
  void ResetStats();
  void Clear();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lmfusion
