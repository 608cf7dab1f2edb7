#include <stdexcept>
#include <utility>

#include "base/stopwatch.h"
#include "lmfusion/call_watch.h"
#include "scorer/scorer_impl.h"
#include "text/stage/text_stage.h"

namespace lmfusion {
namespace {

// Adds the paths of `more` as further candidates.
void Append(TokenPaths more, TokenPaths* paths) {
  const auto alternatives = static_cast<int32_t>(paths->candidate_of.size());
  for (TokenPaths::Path& path : more.paths) {
    path.alternative += alternatives;
    paths->paths.push_back(std::move(path));
  }
  for (const int32_t candidate : more.candidate_of) {
    paths->candidate_of.push_back(paths->candidates + candidate);
  }
  paths->candidates += more.candidates;
}

// The contexts themselves: nothing of the empty candidate is scored.
TokenPaths Contexts(const TextStage& text, const std::vector<std::string>& contexts,
                    TextCall* call) {
  const std::vector<std::string> empty_word{""};
  return text.Continuations(contexts,
                            std::vector<std::vector<std::string>>(contexts.size(), empty_word),
                            Join::kNone, call);
}

}  // namespace

int64_t LMFusionScorer::prime(const std::vector<std::string>& contexts,
                              const std::vector<std::string>& vocabulary,
                              const std::vector<std::string>& after,
                              const std::string& cache_namespace, std::optional<Join> join) {
  const ForkGuard::Call in_progress(impl().fork_guard);
  const TextStage& text = impl().Text();
  if (!vocabulary.empty() && after.empty()) {
    throw std::invalid_argument(
        "after is empty, so the words of vocabulary follow nothing; \"\" is the beginning of a "
        "text");
  }
  Stopwatch watch;
  TextCall call{cache_namespace};
  TokenPaths paths = Contexts(text, contexts, &call);
  if (!vocabulary.empty()) {
    Append(Contexts(text, after, &call), &paths);
    for (const std::string& context : after) {
      Append(text.Continuations({context}, {vocabulary}, join.value_or(impl().options.join), &call),
             &paths);
    }
  }
  Stats added;  // no call: nothing is scored
  added.tokens_requested = TokenCount(paths);
  added.truncated_contexts = call.truncated_contexts;
  added.text_bytes_tokenized = call.bytes_tokenized;
  added.text_seconds = watch.Lap();
  impl().counters.Add(added);
  CallWatch* const told = CallWatch::Current();
  if (told != nullptr) told->Begin(paths.candidates);
  const int64_t computed = impl().path_scorer->Prime(paths, cache_namespace);
  if (told != nullptr) told->Report(1, 1);
  return computed;
}

int64_t LMFusionScorer::save_cache(const std::string& path,
                                   const std::vector<std::string>& contexts,
                                   const std::string& cache_namespace) {
  const ForkGuard::Call in_progress(impl().fork_guard);
  if (contexts.empty()) return impl().path_scorer->Save(path, nullptr, cache_namespace);
  TextCall call{cache_namespace};
  const TokenPaths paths = Contexts(impl().Text(), contexts, &call);
  return impl().path_scorer->Save(path, &paths, cache_namespace);
}

int64_t LMFusionScorer::load_cache(const std::string& path, const std::string& cache_namespace) {
  return impl().path_scorer->Load(path, cache_namespace);
}

}  // namespace lmfusion
