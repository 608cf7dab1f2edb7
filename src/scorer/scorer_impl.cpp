#include "scorer/scorer_impl.h"

#include <limits>
#include <stdexcept>
#include <utility>

#include "base/checksum.h"
#include "base/stopwatch.h"
#include "engine/torchscript_lm.h"
#include "scorer/candidate_sums.h"
#include "scorer/floors.h"
#include "scorer/text_settings.h"

namespace lmfusion {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<double> Flat(const std::vector<std::vector<double>>& rows) {
  std::vector<double> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return flat;
}

}  // namespace

LMFusionScorer::Impl::Impl(const std::string& path, ScorerOptions given)
    : options(std::move(given)) {
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
  if (!begins_word.empty()) {
    const std::string bits(begins_word.begin(), begins_word.end());
    // Never 0, which stands for none.
    scoring.word_beginnings = (uint64_t{1} << 32) | Checksum(bits.data(), bits.size());
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

const TextStage& LMFusionScorer::Impl::Text() const {
  if (text_stage != nullptr) return *text_stage;
  throw std::invalid_argument(
      "the model file has no tokenizer; give the scorer one (option tokenizer), or use "
      "score_token_paths");
}

std::vector<double> LMFusionScorer::Impl::ScorePiece(const MakePaths& make_paths,
                                                     const std::string& cache_namespace,
                                                     const std::vector<double>& floors,
                                                     Stats* added) {
  Stopwatch stage;
  TextCounters text;
  const TokenPaths paths = make_paths(&text);
  added->text_seconds += stage.Lap();
  added->candidates += paths.candidates;
  added->tokens_requested += TokenCount(paths);
  added->truncated_contexts += text.truncated_contexts;
  added->text_bytes_tokenized += text.bytes_tokenized;
  std::vector<double> sums =
      CandidateSums(paths, floors.empty() || !shares_prefixes
                               ? path_scorer->Score(paths, cache_namespace)
                               : ScoreAboveFloors(*path_scorer, paths, floors, cache_namespace));
  for (size_t i = 0; i < floors.size(); ++i) {
    if (sums[i] < floors[i]) sums[i] = -kInfinity;
  }
  return sums;
}

std::vector<double> LMFusionScorer::Impl::Score(const MakePaths& make_paths,
                                                const std::string& cache_namespace) {
  Stopwatch total;
  Stats added;
  added.calls = 1;
  const std::vector<double> sums = ScorePiece(make_paths, cache_namespace, {}, &added);
  added.total_seconds = total.Lap();
  Count(added);
  return sums;
}

std::vector<double> LMFusionScorer::Impl::ScoreContinuations(
    const std::vector<std::string>& contexts, const std::vector<std::vector<std::string>>& words,
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

std::vector<double> LMFusionScorer::Impl::ScoreUntil(
    const std::vector<std::string>& contexts, const std::vector<std::vector<std::string>>& words,
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
        [&](TextCounters* counters) { return Text().Continuations(piece, piece_words, counters); },
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

double LMFusionScorer::Impl::SecondsPerCandidate(const Stats& added) {
  const std::lock_guard<std::mutex> lock(stats_mutex);
  const uint64_t candidates = stats.candidates + added.candidates;
  if (candidates == 0) return kInfinity;  // nothing known: one context
  return (stats.total_seconds + added.total_seconds) / static_cast<double>(candidates);
}

void LMFusionScorer::Impl::Count(const Stats& added) {
  const std::lock_guard<std::mutex> lock(stats_mutex);
  stats += added;
  if (added.calls > 0) latencies.Add(added.total_seconds);
}

Stats LMFusionScorer::Impl::SinceMade() const {
  Stats all = stats;
  all.latency_p50 = latencies.Quantile(0.5);
  all.latency_p95 = latencies.Quantile(0.95);
  all.latency_p99 = latencies.Quantile(0.99);
  path_scorer->AddTo(&all);
  return all;
}

}  // namespace lmfusion
