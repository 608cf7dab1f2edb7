#include "scorer/call.h"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "scorer/candidate_sums.h"
#include "scorer/pruning.h"
#include "scorer/selfcheck.h"
#include "scorer/shapes.h"

namespace lmfusion {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

size_t CandidateCount(const std::vector<std::vector<std::string>>& words) {
  size_t count = 0;
  for (const auto& row : words) count += row.size();
  return count;
}

void CheckShapes(const std::vector<std::string>& contexts,
                 const std::vector<std::vector<std::string>>& words) {
  if (contexts.size() == words.size()) return;
  throw std::invalid_argument(std::to_string(contexts.size()) + " contexts and " +
                              std::to_string(words.size()) +
                              " lists of candidate words; one list a context expected");
}

// [candidates] of the log-probabilities that the floors stand for; empty: none.
std::vector<double> Thresholds(const std::vector<std::vector<double>>& floors,
                               const std::vector<std::vector<std::string>>& words, double weight,
                               double bonus) {
  if (floors.empty()) return {};
  if (!(weight > 0)) {
    throw std::invalid_argument("floors need a weight above 0, and weight = " +
                                std::to_string(weight));
  }
  Shape shape{"contexts", "candidate", {}};
  for (const auto& row : words) shape.sizes.push_back(row.size());
  CheckShape("floor", floors, shape);
  std::vector<double> thresholds;
  for (size_t i = 0; i < floors.size(); ++i) {
    for (size_t j = 0; j < floors[i].size(); ++j) {
      if (std::isnan(floors[i][j])) {
        throw std::invalid_argument("floor[" + std::to_string(i) + "][" + std::to_string(j) +
                                    "] is NaN; a number expected");
      }
      thresholds.push_back((floors[i][j] - bonus) / weight);
    }
  }
  return thresholds;
}

std::vector<double> Pruned(std::vector<double> log_probs, const std::vector<double>& thresholds) {
  for (size_t i = 0; i < thresholds.size(); ++i) {
    if (log_probs[i] < thresholds[i]) log_probs[i] = -kInfinity;
  }
  return log_probs;
}

}  // namespace

// The first piece decides, unless the whole was told before.
void ScorerCall::Begin(int64_t candidates) {
  if (watch_ != nullptr && !std::exchange(began_, true)) watch_->Begin(candidates);
}

TextBefore ScorerCall::Before(const History& history) {
  TextBefore before = scorer_.Text().Before(history, &text_);
  if (!before.empty()) held_ = scorer_.path_scorer->Hold(before.path, cache_namespace_);
  return before;
}

void ScorerCall::CountPaths(const TokenPaths& paths) {
  Begin(paths.candidates);
  counts_.text_seconds += stage_.Lap();
  counts_.candidates += paths.candidates;
  counts_.tokens_requested += TokenCount(paths);
}

PathScores ScorerCall::ScoreTokens(const TokenPaths& paths, CallReport* report) {
  CountPaths(paths);
  PathScores scores = scorer_.path_scorer->Score(paths, cache_namespace_, report);
  if (scorer_.SelfcheckIsDue()) Compare(paths, scores);
  stage_.Lap();
  return scores;
}

double ScorerCall::Selfcheck(const TokenPaths& paths) {
  CountPaths(paths);
  return Compare(paths, scorer_.path_scorer->Score(paths, cache_namespace_, nullptr));
}

double ScorerCall::Compare(const TokenPaths& paths, const PathScores& scores) {
  const double difference = LargestDifference(scores, scorer_.path_scorer->ScoreUncached(paths));
  ++counts_.selfchecks;
  if (difference > SelfcheckTolerance(scorer_.options)) ++counts_.selfcheck_failures;
  return difference;
}

std::vector<double> ScorerCall::Score(const TokenPaths& paths,
                                      const std::vector<double>& thresholds) {
  const bool prunes = !thresholds.empty() && scorer_.shares_prefixes;
  if (!prunes) return Pruned(CandidateSums(paths, ScoreTokens(paths)), thresholds);
  CountPaths(paths);
  const PathScores scores =
      ScoreWithPruning(*scorer_.path_scorer, paths, thresholds, cache_namespace_);
  stage_.Lap();
  return Pruned(CandidateSums(paths, scores), thresholds);
}

// A piece of the call is what should take half of the time that is left, by the seconds a candidate
// took so far; one context at least.
std::vector<double> ScorerCall::ScoreUntil(double deadline,
                                           const std::vector<std::string>& contexts,
                                           const std::vector<std::vector<std::string>>& words,
                                           Join join, const TextBefore& before,
                                           const std::vector<double>& thresholds) {
  std::vector<double> log_probs;
  Begin(static_cast<int64_t>(CandidateCount(words)));
  for (size_t begin = 0; begin < contexts.size();) {
    const double left = deadline - total_.Seconds();
    if (!(left > 0)) break;
    const double most = 0.5 * left / SecondsPerCandidate();
    size_t end = begin, candidates = 0;
    do {
      candidates += words[end++].size();
    } while (end < contexts.size() && static_cast<double>(candidates + words[end].size()) < most);
    const TokenPaths paths = scorer_.Text().Continuations(
        {contexts.begin() + begin, contexts.begin() + end},
        {words.begin() + begin, words.begin() + end}, join, &text_, before);
    const auto threshold = thresholds.begin() + (thresholds.empty() ? 0 : log_probs.size());
    const auto threshold_end = thresholds.empty() ? threshold : threshold + candidates;
    if (watch_ != nullptr) watch_->BeginPiece(log_probs.size(), candidates);
    const std::vector<double> found = Score(paths, {threshold, threshold_end});
    log_probs.insert(log_probs.end(), found.begin(), found.end());
    begin = end;
  }
  log_probs.resize(CandidateCount(words), std::numeric_limits<double>::quiet_NaN());
  return log_probs;
}

std::vector<BestList> ScorerCall::Best(HypothesisLists lists, const BestSearchOptions& options,
                                       double deadline) {
  CountPaths(lists.paths);
  BestSearch search(*scorer_.path_scorer, std::move(lists), options, cache_namespace_);
  const auto tell = [&] {  // what a pass settles is known after it
    if (watch_ != nullptr) watch_->BeginPiece(search.settled(), 0);
  };
  tell();
  while (!search.done() && total_.Seconds() < deadline) {
    search.Round();
    tell();
  }
  stage_.Lap();
  return search.Results();
}

double ScorerCall::SecondsPerCandidate() const {
  const Stats before = scorer_.counters.Total();
  const auto candidates = static_cast<double>(before.candidates + counts_.candidates);
  if (candidates == 0) return kInfinity;  // nothing known: one context
  return (before.total_seconds + total_.Seconds()) / candidates;
}

void ScorerCall::Finish() {
  if (watch_ != nullptr && began_) watch_->Report(1, 1);
  counts_.truncated_contexts = text_.truncated_contexts;
  counts_.text_bytes_tokenized = text_.bytes_tokenized;
  counts_.total_seconds = total_.Seconds();
  scorer_.counters.Add(counts_);
}

std::vector<std::vector<double>> ScoreContinuations(
    LMFusionScorer::Impl& scorer, const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& words, const CallOptions& options, double weight,
    double bonus) {
  CheckShapes(contexts, words);
  CheckDeadline(options.deadline);
  const std::vector<double> thresholds = Thresholds(options.floors, words, weight, bonus);
  const Join join = options.join.value_or(scorer.options.join);
  ScorerCall call(scorer, options.cache_namespace);
  const TextStage& text = scorer.Text();
  const TextBefore before = call.Before(options.history);
  const std::vector<double> log_probs =
      options.deadline == kInfinity
          ? call.Score(text.Continuations(contexts, words, join, call.text(), before), thresholds)
          : call.ScoreUntil(options.deadline, contexts, words, join, before, thresholds);
  call.Finish();
  std::vector<std::vector<double>> scores;
  auto next = log_probs.begin();
  for (const auto& row : words) {
    scores.emplace_back();
    for (size_t j = 0; j < row.size(); ++j) scores.back().push_back(weight * *next++ + bonus);
  }
  return scores;
}

double Selfcheck(LMFusionScorer::Impl& scorer, const std::vector<std::string>& contexts,
                 const std::vector<std::vector<std::string>>& words,
                 const std::string& cache_namespace) {
  CheckShapes(contexts, words);
  ScorerCall call(scorer, cache_namespace);
  const double difference = call.Selfcheck(
      scorer.Text().Continuations(contexts, words, scorer.options.join, call.text()));
  call.Finish();
  return difference;
}

}  // namespace lmfusion
