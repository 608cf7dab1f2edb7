#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/token_paths.h"
#include "cache/path_scorer.h"
#include "lmfusion/scorer.h"
#include "scorer/latencies.h"
#include "text/stage/text_stage.h"

namespace lmfusion {

// What a scorer has, and how a call goes through it: the text stage makes paths, the path scorer
// scores them.
struct LMFusionScorer::Impl {
  using MakePaths = std::function<TokenPaths(TextCounters*)>;

  Impl(const std::string& path, ScorerOptions given);

  // Throws std::invalid_argument where there is no tokenizer.
  const TextStage& Text() const;

  // [candidates] of a whole call.
  std::vector<double> Score(const MakePaths& make_paths, const std::string& cache_namespace);

  // [candidates], those of all contexts one after another.
  std::vector<double> ScoreContinuations(const std::vector<std::string>& contexts,
                                         const std::vector<std::vector<std::string>>& words,
                                         const CallOptions& call);

  // Adds to the counters of stats().
  void Count(const Stats& added);

  // All that was ever counted, and the latencies since the last reset. Under stats_mutex.
  Stats SinceMade() const;

  ScorerOptions options;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<TextStage> text_stage;
  std::unique_ptr<TextStage> as_given;  // the same without casing
  bool shares_prefixes = false;         // between calls
  std::unique_ptr<PathScorer> path_scorer;
  std::mutex stats_mutex;
  Stats stats;     // of this layer: calls, texts, seconds
  Stats at_reset;  // SinceMade() when the counters were reset last
  Latencies latencies;

 private:
  // One piece of a call; its counters go to `added`. floors: [candidates] or empty.
  std::vector<double> ScorePiece(const MakePaths& make_paths, const std::string& cache_namespace,
                                 const std::vector<double>& floors, Stats* added);
  // Piece after piece until the deadline. A piece is what should take half of the time that is
  // left, by the seconds a candidate took so far; one context at least.
  std::vector<double> ScoreUntil(const std::vector<std::string>& contexts,
                                 const std::vector<std::vector<std::string>>& words,
                                 const CallOptions& call);
  double SecondsPerCandidate(const Stats& added);
};

}  // namespace lmfusion
