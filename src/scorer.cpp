#include "lmfusion/scorer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "candidate_sums.h"
#include "explanation.h"
#include "floors.h"
#include "latencies.h"
#include "model/torchscript_lm.h"
#include "path_scorer.h"
#include "stopwatch.h"
#include "text_settings.h"
#include "text_stage.h"

namespace lmfusion {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<double> Flat(const std::vector<std::vector<double>>& rows) {
  std::vector<double> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return flat;
}

void CheckFloors(const std::vector<std::vector<double>>& floors,
                 const std::vector<std::vector<std::string>>& words) {
  if (floors.empty()) return;
  bool same_shape = floors.size() == words.size();
  for (size_t i = 0; same_shape && i < words.size(); ++i) {
    same_shape = floors[i].size() == words[i].size();
    for (const double floor : floors[i]) {
      if (std::isnan(floor)) throw std::invalid_argument("a floor is NaN; a number expected");
    }
  }
  if (!same_shape) {
    throw std::invalid_argument("floors must have one number a candidate, [contexts][candidates]");
  }
}

uint64_t TokenCount(const TokenPaths& paths) {
  uint64_t count = 0;
  for (const TokenPaths::Path& path : paths.paths) count += path.size();
  return count;
}

}  // namespace

struct LMFusionScorer::Impl {
  Impl(const std::string& path, ScorerOptions given) : options(std::move(given)) {
    options.Validate();
    LoadedModel loaded = LoadTorchScript(path, options);
    const ModelDescription& model = loaded.bundle.description;
    tokenizer = MakeTokenizer(options, loaded.bundle);
    TextStageOptions text;
    text.start_token = StartToken(options, model, tokenizer.get());
    text.end_token = model.eos_token_id;
    text.max_context_length = ContextLength(options, model);
    text.max_path_length = model.max_positions;
    text.boundary = options.boundary;
    std::vector<bool> begins_word;
    if (tokenizer != nullptr) {
      text_stage = std::make_unique<TextStage>(tokenizer, MakeCasing(options, loaded.bundle), text);
      as_given = std::make_unique<TextStage>(tokenizer, CasingByName("none"), text);
      if (options.boundary == Boundary::kWord) begins_word = WordBeginnings(*tokenizer, model);
    }
    PathScorerOptions scoring;
    scoring.mode = options.mode;
    scoring.max_batch_tokens = options.max_batch_tokens;
    scoring.kv_cache_bytes = options.kv_cache_bytes;
    if (options.kv_cache_bytes < 0 && loaded.tree != nullptr) {
      scoring.kv_cache_bytes = loaded.tree->AutoCacheBytes();
    }
    shares_prefixes = loaded.plain == nullptr && options.mode == Mode::kTree;
    if (loaded.plain != nullptr) {
      if (!begins_word.empty()) loaded.plain->SetWordBeginnings(begins_word);
      path_scorer = PlainPathScorer(std::move(loaded.plain), scoring);
    } else {
      if (!begins_word.empty()) loaded.tree->SetWordBeginnings(begins_word);
      path_scorer = CachedPathScorer(std::move(loaded.tree), scoring);
    }
  }

  const TextStage& Text() const {
    if (text_stage != nullptr) return *text_stage;
    throw std::invalid_argument(
        "the model file has no tokenizer; give the scorer one (option tokenizer), or use "
        "score_token_paths");
  }

  // The text stage makes paths, the path scorer scores them. One piece of a call; its counters go
  // to `added`. floors: [candidates] or empty.
  template <typename MakePaths>
  std::vector<double> ScorePiece(MakePaths make_paths, const std::string& cache_namespace,
                                 const std::vector<double>& floors, Stats* added) {
    Stopwatch stage;
    TextCounters text;
    const TokenPaths paths = make_paths(&text);
    added->text_seconds += stage.Lap();
    added->candidates += paths.candidates;
    added->tokens_requested += TokenCount(paths);
    added->truncated_contexts += text.truncated_contexts;
    added->text_bytes_tokenized += text.bytes_tokenized;
    std::vector<double> sums = CandidateSums(
        paths, floors.empty() || !shares_prefixes
                   ? path_scorer->Score(paths, cache_namespace)
                   : ScoreAboveFloors(*path_scorer, paths, floors, cache_namespace));
    for (size_t i = 0; i < floors.size(); ++i) {
      if (sums[i] < floors[i]) sums[i] = -kInfinity;
    }
    return sums;
  }

  template <typename MakePaths>
  std::vector<double> Score(MakePaths make_paths, const std::string& cache_namespace) {
    Stopwatch total;
    Stats added;
    added.calls = 1;
    const std::vector<double> sums = ScorePiece(make_paths, cache_namespace, {}, &added);
    added.total_seconds = total.Lap();
    Count(added);
    return sums;
  }

  // [candidates], those of all contexts one after another.
  std::vector<double> ScoreContinuations(const std::vector<std::string>& contexts,
                                         const std::vector<std::vector<std::string>>& words,
                                         const CallOptions& call) {
    if (call.deadline == kInfinity) {
      Stopwatch total;
      Stats added;
      added.calls = 1;
      std::vector<double> sums = ScorePiece(
          [&](TextCounters* counters) { return Text().Continuations(contexts, words, counters); },
          call.cache_namespace, Flat(call.floors), &added);
      added.total_seconds = total.Lap();
      Count(added);
      return sums;
    }
    return ScoreUntil(contexts, words, call);
  }

  // Piece after piece until the deadline. A piece is what should take half of the time that is
  // left, by the seconds a candidate took so far; one context at least.
  std::vector<double> ScoreUntil(const std::vector<std::string>& contexts,
                                 const std::vector<std::vector<std::string>>& words,
                                 const CallOptions& call) {
    Stopwatch lap;
    Stats added;
    added.calls = 1;
    std::vector<double> sums;
    for (size_t begin = 0; begin < contexts.size();) {
      added.total_seconds += lap.Lap();
      const double left = call.deadline - added.total_seconds;
      if (!(left > 0)) break;
      const double most = 0.5 * left / SecondsPerCandidate(added);
      size_t end = begin, candidates = 0;
      do {
        candidates += words[end++].size();
      } while (end < contexts.size() && static_cast<double>(candidates + words[end].size()) < most);
      const std::vector<std::string> piece(contexts.begin() + begin, contexts.begin() + end);
      const std::vector<std::vector<std::string>> piece_words(words.begin() + begin,
                                                              words.begin() + end);
      const std::vector<double> floors =
          call.floors.empty() ? std::vector<double>()
                              : Flat({call.floors.begin() + begin, call.floors.begin() + end});
      const std::vector<double> found = ScorePiece(
          [&](TextCounters* counters) {
            return Text().Continuations(piece, piece_words, counters);
          },
          call.cache_namespace, floors, &added);
      sums.insert(sums.end(), found.begin(), found.end());
      begin = end;
    }
    size_t all = 0;
    for (const auto& row : words) all += row.size();
    sums.resize(all, std::numeric_limits<double>::quiet_NaN());
    added.total_seconds += lap.Lap();
    Count(added);
    return sums;
  }

  double SecondsPerCandidate(const Stats& added) {
    const std::lock_guard<std::mutex> lock(stats_mutex);
    const uint64_t candidates = stats.candidates + added.candidates;
    if (candidates == 0) return kInfinity;  // nothing known: one context
    return (stats.total_seconds + added.total_seconds) / static_cast<double>(candidates);
  }

  void Count(const Stats& added) {
    const std::lock_guard<std::mutex> lock(stats_mutex);
    stats.calls += added.calls;
    stats.candidates += added.candidates;
    stats.tokens_requested += added.tokens_requested;
    stats.truncated_contexts += added.truncated_contexts;
    stats.text_bytes_tokenized += added.text_bytes_tokenized;
    stats.text_seconds += added.text_seconds;
    stats.total_seconds += added.total_seconds;
    latencies.Add(added.total_seconds);
  }

  ScorerOptions options;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<TextStage> text_stage;
  std::unique_ptr<TextStage> as_given;  // the same without casing
  bool shares_prefixes = false;         // between calls
  std::unique_ptr<PathScorer> path_scorer;
  std::mutex stats_mutex;
  Stats stats;
  Latencies latencies;
};

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
  return impl_->Score(
      [&](TextCounters* counters) { return text.Texts(texts, eos, counters); }, cache_namespace);
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
  const std::vector<double> sums = impl_->Score(
      [&](TextCounters* counters) { return text.Endings(texts, endings, counters); },
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
      throw std::invalid_argument("scored_begin[" + std::to_string(i) + "] = " +
                                  std::to_string(scored_begin[i]) + " is not within the " +
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
  const uint64_t before = stats().tokens_computed;
  std::vector<std::vector<bool>> reused;
  const PathScores scores = impl_->path_scorer->Score(paths, cache_namespace, &reused);
  Explanation explanation = ExplainTokens(paths, scores, reused, *impl_->tokenizer);
  explanation.tokens_computed = stats().tokens_computed - before;
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
  Stats stats;
  {
    const std::lock_guard<std::mutex> lock(impl_->stats_mutex);
    stats = impl_->stats;
    stats.latency_p50 = impl_->latencies.Quantile(0.5);
    stats.latency_p95 = impl_->latencies.Quantile(0.95);
    stats.latency_p99 = impl_->latencies.Quantile(0.99);
  }
  impl_->path_scorer->AddTo(&stats);
  return stats;
}

void LMFusionScorer::reset_stats() {
  const std::lock_guard<std::mutex> lock(impl_->stats_mutex);
  impl_->stats = Stats();
  impl_->latencies = Latencies();
  impl_->path_scorer->ResetStats();
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
