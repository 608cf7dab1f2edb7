#include "lmfusion/scorer.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "base/log_sum_exp.h"
#include "lmfusion/errors.h"
#include "scorer/call.h"
#include "scorer/scorer_impl.h"

namespace lmfusion {
namespace {

CallOptions InNamespace(const std::string& cache_namespace) {
  CallOptions call;
  call.cache_namespace = cache_namespace;
  return call;
}

// Whole paths, each a candidate of its own.
TokenPaths PathsOf(const std::vector<std::vector<int32_t>>& tokens,
                   const std::vector<int32_t>& scored_begin) {
  if (tokens.size() != scored_begin.size()) {
    throw std::invalid_argument(std::to_string(tokens.size()) + " paths and " +
                                std::to_string(scored_begin.size()) +
                                " values of scored_begin; one a path expected");
  }
  TokenPaths paths;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (scored_begin[i] < 0 || scored_begin[i] > static_cast<int64_t>(tokens[i].size())) {
      throw std::invalid_argument("scored_begin[" + std::to_string(i) +
                                  "] = " + std::to_string(scored_begin[i]) + " is not within the " +
                                  std::to_string(tokens[i].size()) + " tokens of its path");
    }
    TokenPaths::Path path;
    path.tail = tokens[i];
    path.scored_begin = scored_begin[i];
    path.alternative = paths.candidates;
    paths.paths.push_back(std::move(path));
    paths.candidate_of.push_back(paths.candidates++);
  }
  return paths;
}

}  // namespace

LMFusionScorer::LMFusionScorer(const std::string& model_path, ScorerOptions options)
    : impl_(std::make_shared<Impl>(model_path, std::move(options))) {}
LMFusionScorer::LMFusionScorer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
LMFusionScorer::~LMFusionScorer() = default;
LMFusionScorer::LMFusionScorer(LMFusionScorer&&) noexcept = default;
LMFusionScorer& LMFusionScorer::operator=(LMFusionScorer&&) noexcept = default;

LMFusionScorer::Impl& LMFusionScorer::impl() const {
  if (impl_ != nullptr) return *impl_;
  throw Error("the scorer was moved from and holds no model; use the one that it was moved to");
}

LMFusionScorer LMFusionScorer::Sharing() const {
  impl();
  return LMFusionScorer(impl_);
}

const ScorerOptions& LMFusionScorer::options() const { return impl().options; }

std::vector<std::vector<double>> LMFusionScorer::log_probs(
    const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& candidate_words,
    const std::string& cache_namespace) {
  return log_probs(contexts, candidate_words, InNamespace(cache_namespace));
}

std::vector<std::vector<double>> LMFusionScorer::log_probs(
    const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& candidate_words, const CallOptions& call) {
  return ScoreContinuations(impl(), contexts, candidate_words, call, 1, 0);
}

std::vector<std::vector<double>> LMFusionScorer::score_continuations(
    const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& candidate_words,
    const std::string& cache_namespace) {
  return score_continuations(contexts, candidate_words, InNamespace(cache_namespace));
}

std::vector<std::vector<double>> LMFusionScorer::score_continuations(
    const std::vector<std::string>& contexts,
    const std::vector<std::vector<std::string>>& candidate_words, const CallOptions& call) {
  return ScoreContinuations(impl(), contexts, candidate_words, call, options().weight,
                            options().word_insertion_bonus);
}

std::vector<double> LMFusionScorer::score_texts(const std::vector<std::string>& texts, bool eos,
                                                const std::string& cache_namespace,
                                                const History& history) {
  ScorerCall call(impl(), cache_namespace);
  const TextStage& text = impl().Text();
  const TextBefore before = call.Before(history);
  const std::vector<double> scores = call.Score(text.Texts(texts, eos, call.text(), before));
  call.Finish();
  return scores;
}

std::vector<double> LMFusionScorer::score_texts_batch(const std::vector<std::string>& texts,
                                                      bool length_normalize,
                                                      const std::string& cache_namespace) {
  ScorerCall call(impl(), cache_namespace);
  const TokenPaths paths = impl().TextAsGiven().Texts(texts, false, call.text());
  std::vector<double> scores = call.Score(paths);
  call.Finish();
  if (!length_normalize) return scores;
  std::vector<int64_t> tokens(texts.size(), 0);
  for (const TokenPaths::Path& path : paths.paths) {
    tokens[paths.candidate_of[path.alternative]] += path.size() - path.scored_begin;
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    if (tokens[i] > 0) scores[i] /= static_cast<double>(tokens[i]);
  }
  return scores;
}

std::vector<std::vector<double>> LMFusionScorer::score_endings(
    const std::vector<std::string>& texts, const std::vector<std::string>& endings,
    const std::string& cache_namespace, const History& history) {
  ScorerCall call(impl(), cache_namespace);
  const TextStage& text = impl().Text();
  const TextBefore before = call.Before(history);
  const std::vector<double> scores = call.Score(text.Endings(texts, endings, call.text(), before));
  call.Finish();
  std::vector<std::vector<double>> rows;
  for (auto row = scores.begin(); rows.size() < texts.size(); row += endings.size()) {
    rows.emplace_back(row, row + endings.size());
  }
  return rows;
}

std::vector<std::vector<float>> LMFusionScorer::score_token_paths(
    const std::vector<std::vector<int32_t>>& paths, const std::vector<int32_t>& scored_begin,
    const std::string& cache_namespace) {
  ScorerCall call(impl(), cache_namespace);
  PathScores scores = call.ScoreTokens(PathsOf(paths, scored_begin));
  call.Finish();
  return std::move(scores.log_probs);
}

double LMFusionScorer::selfcheck(const std::vector<std::string>& contexts,
                                 const std::vector<std::vector<std::string>>& candidate_words,
                                 const std::string& cache_namespace) {
  return Selfcheck(impl(), contexts, candidate_words, cache_namespace);
}

double LMFusionScorer::aggregate_homophone_scores(const std::vector<double>& scores) const {
  if (scores.empty()) {
    throw std::invalid_argument("there are no scores to aggregate; one at least expected");
  }
  if (options().homophone_aggregation == "max") {
    return *std::max_element(scores.begin(), scores.end());
  }
  return LogSumExp(scores);
}

// Sets one option, if all are valid then.
template <typename T>
void LMFusionScorer::Set(T ScorerOptions::*member, T value) {
  ScorerOptions changed = options();
  changed.*member = value;
  changed.Validate();
  impl().options.*member = std::move(value);
}

void LMFusionScorer::set_weight(double weight) { Set(&ScorerOptions::weight, weight); }
void LMFusionScorer::set_word_insertion_bonus(double bonus) {
  Set(&ScorerOptions::word_insertion_bonus, bonus);
}
void LMFusionScorer::set_homophone_aggregation(const std::string& aggregation) {
  Set(&ScorerOptions::homophone_aggregation, aggregation);
}

Stats LMFusionScorer::stats() const { return impl().CountedSinceReset(); }
void LMFusionScorer::reset_stats() { impl().ResetCounters(); }
void LMFusionScorer::clear_cache() { impl().ClearCache(nullptr); }
void LMFusionScorer::clear_cache(const std::string& cache_namespace) {
  impl().ClearCache(&cache_namespace);
}

const std::string& LMFusionScorer::model_description() const {
  return impl().path_scorer->description().json;
}

const Tokenizer& LMFusionScorer::tokenizer() const {
  impl().Text();
  return *impl().tokenizer;
}

}  // namespace lmfusion
