#include "scorer/scorer_impl.h"

#include <stdexcept>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "engine/engines.h"
#include "scorer/text_settings.h"

namespace lmfusion {
namespace {

[[noreturn]] void ThrowNoTokenizer() {
  throw std::invalid_argument(
      "the model file has no tokenizer; give the scorer one (option tokenizer), or use "
      "score_token_paths");
}

}  // namespace

LMFusionScorer::Impl::Impl(const std::string& path, ScorerOptions given)
    : options(std::move(given)) {
  options.Validate();
  LoadedModel loaded = LoadModel(path, options);
  const ModelDescription& model = loaded.bundle.description;
  tokenizer = MakeTokenizer(options, loaded.bundle);
  TextStageOptions text;
  text.start_token = StartToken(options, model, tokenizer.get());
  text.end_token = model.eos_token_id;
  text.max_context_length = ContextLength(options, model);
  text.max_path_length = model.max_positions;
  text.boundary = options.boundary;
  text.join = options.join;
  std::vector<bool> begins_word;
  if (tokenizer != nullptr) {
    text_stage = std::make_unique<TextStage>(tokenizer, MakeCasing(options, loaded.bundle), text);
    text_as_given = std::make_unique<TextStage>(tokenizer, CasingByName("none"), text);
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
    scoring.word_beginnings = Checksum(bits.data(), bits.size());
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
  if (text_stage == nullptr) ThrowNoTokenizer();
  return *text_stage;
}

const TextStage& LMFusionScorer::Impl::TextAsGiven() const {
  if (text_as_given == nullptr) ThrowNoTokenizer();
  return *text_as_given;
}

void LMFusionScorer::Impl::ClearCache(const std::string* cache_namespace) {
  const ForkGuard::Call in_progress(fork_guard);
  path_scorer->Clear(cache_namespace);
  for (const TextStage* const stage : {text_stage.get(), text_as_given.get()}) {
    if (stage != nullptr) stage->Forget(cache_namespace);
  }
}

Stats LMFusionScorer::Impl::CountedSinceReset() const {
  const ForkGuard::Call in_progress(fork_guard);
  const std::lock_guard<std::mutex> lock(reset_mutex_);
  Stats stats = CountedSinceMade().Since(at_reset_);
  counters.FillLatencies(&stats);
  return stats;
}

void LMFusionScorer::Impl::ResetCounters() {
  const ForkGuard::Call in_progress(fork_guard);
  const std::lock_guard<std::mutex> lock(reset_mutex_);
  at_reset_ = CountedSinceMade();
  counters.ForgetLatencies();
}

Stats LMFusionScorer::Impl::CountedSinceMade() const {
  Stats stats;
  path_scorer->AddTo(&stats);
  stats += counters.Total();
  return stats;
}

}  // namespace lmfusion
