#include "lmfusion/scorer.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "base/log_sum_exp.h"
#include "base/stopwatch.h"
#include "scorer/candidate_sums.h"
#include "scorer/explanation.h"
#include "scorer/scorer_impl.h"

namespace lmfusion {
namespace {

void CheckFloors(const std::vector<std::vector<double>>& floors,
                 const std::vector<std::vector<std::string>>& words) {
  if (floors.empty()) return;
  if (floors.size() != words.size()) {
    throw std::invalid_argument(
        "floor has " + std::to_string(floors.size()) + " rows for " + std::to_string(words.size()) +
        " contexts; one number a candidate, [contexts][candidates], expected");
  }
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string row = "floor[" + std::to_string(i) + "]";
    if (floors[i].size() != words[i].size()) {
      throw std::invalid_argument(row + " has " + std::to_string(floors[i].size()) +
                                  " numbers for " + std::to_string(words[i].size()) +
                                  " candidates; one a candidate expected");
    }
    for (size_t j = 0; j < floors[i].size(); ++j) {
      if (!std::isnan(floors[i][j])) continue;
      throw std::invalid_argument(row + "[" + std::to_string(j) + "] is NaN; a number expected");
    }
  }
}

}  // namespace

LMFusionScorer::LMFusionScorer(const std::string& model_path, ScorerOptions options)
    : impl_(std::make_unique<Impl>(model_path, std::move(options))) {}
LMFusionScorer::~LMFusionScorer() = default;
LMFusionScorer::LMFusionScorer(LMFusionScorer&&) noexcept = default;

const ScorerOptions& LMFusionScorer::options() const { return impl_->options; }

std::vector<std::vector<double>> LMFusionScorer::log_probs(
    const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& candidate_words,
    const std::string& cache_namespace) {
  CallOptions call;
  call.cache_namespace = cache_namespace;
  return log_probs(contexts, candidate_words, call);
}

std::vector<std::vector<double>> LMFusionScorer::log_probs(
    const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& candidate_words, const CallOptions& call) {
  if (contexts.size() != candidate_words.size()) {
    throw std::invalid_argument(std::to_string(contexts.size()) + " contexts and " +
                                std::to_string(candidate_words.size()) +
                                " lists of candidate words; one list a context expected");
  }
  CheckFloors(call.floors, candidate_words);
  if (std::isnan(call.deadline)) {
    throw std::invalid_argument("deadline is NaN; seconds expected, 0 or less to score nothing");
  }
  const std::vector<double> sums = impl_->ScoreContinuations(contexts, candidate_words, call);
  std::vector<std::vector<double>> ragged;
  auto next = sums.begin();
  for (const auto& words : candidate_words) {
    ragged.emplace_back(next, next + words.size());
    next += words.size();
  }
  return ragged;
}

std::vector<std::vector<double>> LMFusionScorer::score_continuations(
    const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& candidate_words,
    const std::string& cache_namespace) {
  CallOptions call;
  call.cache_namespace = cache_namespace;
  return score_continuations(contexts, candidate_words, call);
}

std::vector<std::vector<double>> LMFusionScorer::score_continuations(
    const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& candidate_words, const CallOptions& call) {
  const double weight = impl_->options.weight, bonus = impl_->options.word_insertion_bonus;
  CallOptions in_nats = call;
  if (!call.floors.empty() && !(weight > 0)) {
    throw std::invalid_argument("floors need a weight above 0, and weight = " +
                                std::to_string(weight));
  }
  for (auto& row : in_nats.floors) {
    for (double& floor : row) floor = (floor - bonus) / weight;
  }
  std::vector<std::vector<double>> scores = log_probs(contexts, candidate_words, in_nats);
  for (auto& words : scores) {
    for (double& score : words) score = weight * score + bonus;
  }
  return scores;
}

std::vector<double> LMFusionScorer::score_texts(const std::vector<std::string>& texts, bool eos,
                                                const std::string& cache_namespace) {
  const TextStage& text = impl_->Text();
  return impl_->Score([&](TextCounters* counters) { return text.Texts(texts, eos, counters); },
                      cache_namespace);
}

std::vector<double> LMFusionScorer::score_texts_batch(const std::vector<std::string>& texts,
                                                      bool length_normalize,
                                                      const std::string& cache_namespace) {
  impl_->Text();
  std::vector<int64_t> tokens(texts.size(), 0);
  std::vector<double> scores = impl_->Score(
      [&](TextCounters* counters) {
        const TokenPaths paths = impl_->as_given->Texts(texts, false, counters);
        for (const TokenPaths::Path& path : paths.paths) {
          tokens[paths.candidate_of[path.alternative]] += path.size() - path.scored_begin;
        }
        return paths;
      },
      cache_namespace);
  if (!length_normalize) return scores;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (tokens[i] > 0) scores[i] /= static_cast<double>(tokens[i]);
  }
  return scores;
}

std::vector<std::vector<double>> LMFusionScorer::score_endings(
    const std::vector<std::string>& texts, const std::vector<std::string>& endings,
    const std::string& cache_namespace) {
  const TextStage& text = impl_->Text();
  const std::vector<double> sums =
      impl_->Score([&](TextCounters* counters) { return text.Endings(texts, endings, counters); },
                   cache_namespace);
  std::vector<std::vector<double>> rows;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto begin = sums.begin() + i * endings.size();
    rows.emplace_back(begin, begin + endings.size());
  }
  return rows;
}

std::vector<std::vector<float>> LMFusionScorer::score_token_paths(
    const std::vector<std::vector<int32_t>>& paths, const std::vector<int32_t>& scored_begin,
    const std::string& cache_namespace) {
  if (paths.size() != scored_begin.size()) {
    throw std::invalid_argument(std::to_string(paths.size()) + " paths and " +
                                std::to_string(scored_begin.size()) +
                                " values of scored_begin; one a path expected");
  }
  Stopwatch total;
  TokenPaths token_paths;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (scored_begin[i] < 0 || scored_begin[i] > static_cast<int64_t>(paths[i].size())) {
      throw std::invalid_argument("scored_begin[" + std::to_string(i) +
                                  "] = " + std::to_string(scored_begin[i]) + " is not within the " +
                                  std::to_string(paths[i].size()) + " tokens of its path");
    }
    TokenPaths::Path path;
    path.tail = paths[i];
    path.scored_begin = scored_begin[i];
    path.alternative = static_cast<int32_t>(i);
    token_paths.paths.push_back(std::move(path));
    token_paths.candidate_of.push_back(static_cast<int32_t>(i));
  }
  token_paths.candidates = static_cast<int32_t>(paths.size());
  PathScores scores = impl_->path_scorer->Score(token_paths, cache_namespace);
  Stats added;
  added.calls = 1;
  added.candidates = paths.size();
  added.tokens_requested = TokenCount(token_paths);
  added.total_seconds = total.Lap();
  impl_->Count(added);
  return std::move(scores.log_probs);
}

Explanation LMFusionScorer::explain(const std::string& context, const std::string& word,
                                    const std::string& cache_namespace) {
  TextCounters counters;
  const TokenPaths paths = impl_->Text().Continuations({context}, {{word}}, &counters);
  CallReport report;
  const PathScores scores = impl_->path_scorer->Score(paths, cache_namespace, &report);
  Explanation explanation = ExplainTokens(paths, scores, report.reused, *impl_->tokenizer);
  explanation.tokens_computed = report.tokens_computed;
  const CasedText cased = impl_->text_stage->Cased(context, word);
  explanation.text = cased.text;
  explanation.context_bytes = cased.context_bytes;
  explanation.log_prob = CandidateSums(paths, scores).front();
  explanation.score =
      impl_->options.weight * explanation.log_prob + impl_->options.word_insertion_bonus;
  return explanation;
}

double LMFusionScorer::aggregate_homophone_scores(const std::vector<double>& scores) const {
  if (scores.empty()) {
    throw std::invalid_argument("there are no scores to aggregate; one at least expected");
  }
  if (impl_->options.homophone_aggregation == "max") {
    return *std::max_element(scores.begin(), scores.end());
  }
  return LogSumExp(scores);
}

void LMFusionScorer::set_weight(double weight) {
  ScorerOptions changed = impl_->options;
  changed.weight = weight;
  changed.Validate();
  impl_->options.weight = weight;
}

void LMFusionScorer::set_word_insertion_bonus(double bonus) {
  ScorerOptions changed = impl_->options;
  changed.word_insertion_bonus = bonus;
  changed.Validate();
  impl_->options.word_insertion_bonus = bonus;
}

void LMFusionScorer::set_homophone_aggregation(const std::string& aggregation) {
  ScorerOptions changed = impl_->options;
  changed.homophone_aggregation = aggregation;
  changed.Validate();
  impl_->options.homophone_aggregation = aggregation;
}

Stats LMFusionScorer::stats() const {
  const std::lock_guard<std::mutex> lock(impl_->stats_mutex);
  return impl_->SinceMade().Since(impl_->at_reset);
}

void LMFusionScorer::reset_stats() {
  const std::lock_guard<std::mutex> lock(impl_->stats_mutex);
  impl_->at_reset = impl_->SinceMade();
  impl_->latencies = Latencies();
}

void LMFusionScorer::clear_cache() { impl_->path_scorer->Clear(); }

const std::string& LMFusionScorer::model_description() const {
  return impl_->path_scorer->description().json;
}

const Tokenizer& LMFusionScorer::tokenizer() const {
  impl_->Text();
  return *impl_->tokenizer;
}

}  // namespace lmfusion
