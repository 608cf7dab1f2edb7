#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/stopwatch.h"
#include "base/token_paths.h"
#include "lmfusion/call_watch.h"
#include "lmfusion/scorer.h"
#include "scorer/scorer_impl.h"
#include "search/best_search.h"

namespace lmfusion {

// One call of a scorer, which counts what it does: paths made by the text stage are scored, in one
// piece or several. Lives on the stack of one thread.
class ScorerCall {
 public:
  ScorerCall(LMFusionScorer::Impl& scorer, const std::string& cache_namespace)
      : scorer_(scorer), in_progress_(scorer.fork_guard), cache_namespace_(cache_namespace) {
    counts_.calls = 1;
    text_.cache_namespace = cache_namespace_;
  }

  // Whose the texts are, and where the text stage counts.
  TextCall* text() { return &text_; }

  // What of a history stands before the texts of the call; the cache keeps it until the call's end.
  TextBefore Before(const History& history);

  // [candidates] of log p, nats. thresholds: [candidates], nats, or empty; a candidate that is less
  // likely gets -infinity.
  std::vector<double> Score(const TokenPaths& paths, const std::vector<double>& thresholds = {});

  // [candidates] of all contexts one after another; NaN for what the deadline left.
  std::vector<double> ScoreUntil(double deadline, const std::vector<std::string>& contexts,
                                 const std::vector<std::vector<std::string>>& words, Join join,
                                 const TextBefore& before, const std::vector<double>& thresholds);

  // Of every list what is known when all is, or when the deadline comes.
  std::vector<BestList> Best(HypothesisLists lists, const BestSearchOptions& options,
                             double deadline);

  // Scores of every token of a path.
  PathScores ScoreTokens(const TokenPaths& paths, CallReport* report = nullptr);

  // Scores the paths, and again without the cache. Returns the largest difference, nats.
  double Selfcheck(const TokenPaths& paths);

  // Adds what was done to the scorer's counters, and tells the watch of the end. A call that fails
  // is not counted.
  void Finish();

 private:
  void CountPaths(const TokenPaths& paths);
  void Begin(int64_t candidates);  // for the watch
  double SecondsPerCandidate() const;
  double Compare(const TokenPaths& paths, const PathScores& scores);

  LMFusionScorer::Impl& scorer_;
  const ForkGuard::Call in_progress_;
  const std::string& cache_namespace_;
  Stopwatch total_, stage_;
  TextCall text_;
  Stats counts_;
  CallWatch* const watch_ = CallWatch::Current();
  bool began_ = false;
  std::shared_ptr<const void> held_;  // in the cache
};

// score = weight * log p + bonus of every candidate, [contexts][candidates]: the body of
// score_continuations and log_probs. Floors are in the unit of the scores.
std::vector<std::vector<double>> ScoreContinuations(
    LMFusionScorer::Impl& scorer, const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& words, const CallOptions& options, double weight,
    double bonus);

// The body of LMFusionScorer::selfcheck.
double Selfcheck(LMFusionScorer::Impl& scorer, const std::vector<std::string>& contexts,
                 const std::vector<std::vector<std::string>>& words,
                 const std::string& cache_namespace);

}  // namespace lmfusion
