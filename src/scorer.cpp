#include "lmfusion/scorer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "explanation.h"
#include "lmfusion/truecaser.h"
#include "model/torchscript_lm.h"
#include "path_scorer.h"
#include "stopwatch.h"
#include "text_stage.h"

namespace lmfusion {
namespace {

// Positions of the model that max_context_length leaves to a candidate.
constexpr int64_t kLeastCandidatePositions = 16;

std::shared_ptr<const Tokenizer> MakeTokenizer(const ScorerOptions& options, const Bundle& bundle) {
  if (options.tokenizer != nullptr) return options.tokenizer;
  if (bundle.description.tokenizer == "tokenizer.json") return TokenizerFromJson(bundle.tokenizer);
  if (bundle.description.tokenizer == "tokenizer.model") {
    return TokenizerFromSentencePiece(bundle.tokenizer);
  }
  return nullptr;  // enough for token paths
}

std::shared_ptr<const Casing> MakeCasing(const ScorerOptions& options, const Bundle& bundle) {
  if (options.casing_object != nullptr) return options.casing_object;
  if (options.casing != "truecase" && options.casing != "truecase-compat") {
    return CasingByName(options.casing);
  }
  const bool compat = options.casing == "truecase-compat";
  if (!options.truecaser.empty()) return TruecaserFromFile(options.truecaser, compat);
  if (!bundle.truecaser.empty()) return TruecaserFromBytes(bundle.truecaser, compat);
  throw std::invalid_argument(
      "casing = \"" + options.casing + "\" needs a truecaser, and the model file has none; make "
      "one with `python -m lmfusion export-truecaser` and name it in the option truecaser");
}

int32_t StartToken(const ScorerOptions& options, const ModelDescription& model,
                   const Tokenizer* tokenizer) {
  if (options.bos == "auto") return model.bos_token_id;
  if (options.bos == "tokenizer") return model.tokenizer_adds_bos ? model.bos_token_id : -1;
  if (options.bos == "none") return -1;
  const int32_t id = tokenizer == nullptr ? -1 : tokenizer->PieceId(options.bos);
  if (id < 0) {
    throw std::invalid_argument("bos = \"" + options.bos + "\" is neither \"auto\", \"tokenizer\" "
                                "nor \"none\", nor a token of the vocabulary");
  }
  return id;
}

int64_t ContextLength(const ScorerOptions& options, const ModelDescription& model) {
  if (model.max_positions == 0) return options.max_context_length;
  const int64_t left = std::min(kLeastCandidatePositions, model.max_positions / 2);
  return std::max<int64_t>(1, std::min(options.max_context_length,
                                       model.max_positions - 1 - left));
}

std::vector<bool> WordBeginnings(const Tokenizer& tokenizer, const ModelDescription& model) {
  std::vector<bool> begins(model.vocabulary_size, false);
  const auto known = std::min<int64_t>(model.vocabulary_size, tokenizer.VocabularySize());
  for (int32_t id = 0; id < known; ++id) begins[id] = tokenizer.BeginsWord(id);
  if (model.eos_token_id >= 0 && model.eos_token_id < model.vocabulary_size) {
    begins[model.eos_token_id] = true;
  }
  return begins;
}

double LogSumExp(const std::vector<double>& values) {
  const double largest = *std::max_element(values.begin(), values.end());
  if (!std::isfinite(largest)) return largest;
  double sum = 0;
  for (const double value : values) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

// [candidates] of log p: see TokenPaths.
std::vector<double> CandidateSums(const TokenPaths& paths, const PathScores& scores) {
  const std::vector<double> sums = AlternativeSums(paths, scores);
  std::vector<double> candidates(paths.candidates, 0.0);
  for (size_t begin = 0; begin < sums.size();) {
    size_t end = begin + 1;
    const int32_t candidate = paths.candidate_of[begin];
    while (end < sums.size() && paths.candidate_of[end] == candidate) ++end;
    candidates[candidate] = end == begin + 1 ? sums[begin]
                                             : LogSumExp({sums.begin() + begin, sums.begin() + end});
    begin = end;
  }
  return candidates;
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
      if (options.boundary == Boundary::kWord) begins_word = WordBeginnings(*tokenizer, model);
    }
    PathScorerOptions scoring;
    scoring.mode = options.mode;
    scoring.max_batch_tokens = options.max_batch_tokens;
    scoring.kv_cache_bytes = options.kv_cache_bytes;
    if (options.kv_cache_bytes < 0 && loaded.tree != nullptr) {
      scoring.kv_cache_bytes = loaded.tree->AutoCacheBytes();
    }
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

  // The text stage makes paths, the path scorer scores them.
  template <typename MakePaths>
  std::vector<double> Score(MakePaths make_paths, const std::string& cache_namespace) {
    Stopwatch total, stage;
    Stats added;
    added.calls = 1;
    TextCounters text;
    const TokenPaths paths = make_paths(&text);
    added.text_seconds = stage.Lap();
    added.candidates = paths.candidates;
    added.tokens_requested = TokenCount(paths);
    added.truncated_contexts = text.truncated_contexts;
    added.text_bytes_tokenized = text.bytes_tokenized;
    const std::vector<double> sums =
        CandidateSums(paths, path_scorer->Score(paths, cache_namespace));
    added.total_seconds = total.Lap();
    Count(added);
    return sums;
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
  }

  ScorerOptions options;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<TextStage> text_stage;
  std::unique_ptr<PathScorer> path_scorer;
  std::mutex stats_mutex;
  Stats stats;
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
  if (contexts.size() != candidate_words.size()) {
    throw std::invalid_argument(std::to_string(contexts.size()) + " contexts and " +
                                std::to_string(candidate_words.size()) +
                                " lists of candidate words; one list a context expected");
  }
  const TextStage& text = impl_->Text();
  const std::vector<double> sums = impl_->Score(
      [&](TextCounters* counters) {
        return text.Continuations(contexts, candidate_words, counters);
      },
      cache_namespace);
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
  std::vector<std::vector<double>> scores = log_probs(contexts, candidate_words, cache_namespace);
  for (auto& words : scores) {
    for (double& score : words) {
      score = impl_->options.weight * score + impl_->options.word_insertion_bonus;
    }
  }
  return scores;
}

std::vector<double> LMFusionScorer::score_texts(const std::vector<std::string>& texts, bool eos,
                                                const std::string& cache_namespace) {
  const TextStage& text = impl_->Text();
  return impl_->Score(
      [&](TextCounters* counters) { return text.Texts(texts, eos, counters); }, cache_namespace);
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

Stats LMFusionScorer::stats() const {
  Stats stats;
  {
    const std::lock_guard<std::mutex> lock(impl_->stats_mutex);
    stats = impl_->stats;
  }
  impl_->path_scorer->AddTo(&stats);
  return stats;
}

void LMFusionScorer::reset_stats() {
  const std::lock_guard<std::mutex> lock(impl_->stats_mutex);
  impl_->stats = Stats();
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
