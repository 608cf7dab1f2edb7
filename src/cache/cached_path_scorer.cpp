#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/fork_guard.h"
#include "cache/call_queue.h"
#include "cache/path_cache.h"
#include "cache/path_scorer.h"

namespace lmfusion {
namespace {

// A PathCache behind a queue of calls, and counters that are read without waiting for a call.
class CachedScorer final : public PathScorer {
 public:
  CachedScorer(std::unique_ptr<CausalLM> model, PathScorerOptions options)
      : options_(options), cache_(std::move(model), options) {
    Publish(Stats());
  }

  PathScores Score(const TokenPaths& paths, const std::string& cache_namespace,
                   CallReport* report) override {
    const ForkGuard::Call in_progress(fork_guard_);
    CheckPaths(paths, model().description());
    PathScores scores(paths);
    Call call(paths, cache_namespace, &scores, report);
    queue_.Run(&call, [this](Call* first) noexcept {
      Stats counters;
      cache_.DoCalls(first, &counters);
      EndWork(counters);
    });
    if (call.ended_by) std::rethrow_exception(call.ended_by);
    if (call.error) std::rethrow_exception(call.error);
    return scores;
  }

  PathScores ScoreUncached(const TokenPaths& paths) override {
    CheckPaths(paths, model().description());
    PathScores scores(paths);
    Alone([&](Stats* counters) {
      cache_.ScoreUncached(paths, &scores, counters);
      return int64_t{0};
    });
    return scores;
  }

  PathScores Known(const TokenPaths& paths, const std::string& cache_namespace) override {
    CheckPaths(paths, model().description());
    PathScores known = PathScorer::Known(paths, cache_namespace);
    if (options_.mode != Mode::kTree) return known;
    Alone([&](Stats*) {
      cache_.FillKnown(paths, cache_namespace, &known);
      return int64_t{0};
    });
    return known;
  }

  int64_t Capacity() const override { return cache_.capacity(); }

  std::shared_ptr<const void> Hold(const std::shared_ptr<const TokenPaths::Tokens>& tokens,
                                   const std::string& cache_namespace) override {
    if (options_.mode != Mode::kTree) return nullptr;
    return cache_.held().Hold({tokens, cache_namespace});
  }

  int64_t Prime(const TokenPaths& paths, const std::string& cache_namespace) override {
    if (options_.mode != Mode::kTree) return PathScorer::Prime(paths, cache_namespace);
    CheckPaths(paths, model().description());
    return Alone([&](Stats* counters) { return cache_.Prime(paths, cache_namespace, counters); });
  }

  int64_t Save(const std::string& file, const TokenPaths* paths,
               const std::string& cache_namespace) override {
    if (options_.mode != Mode::kTree) return PathScorer::Save(file, paths, cache_namespace);
    return Alone([&](Stats*) { return cache_.Save(file, paths, cache_namespace); });
  }

  int64_t Load(const std::string& file, const std::string& cache_namespace) override {
    if (options_.mode != Mode::kTree) return PathScorer::Load(file, cache_namespace);
    return Alone([&](Stats*) { return cache_.Load(file, cache_namespace); });
  }

  void Clear(const std::string* cache_namespace) override {
    Alone([&](Stats*) {
      cache_.Clear(cache_namespace);
      return int64_t{0};
    });
  }

  const ModelDescription& description() const override { return model().description(); }

  void AddTo(Stats* stats) const override {
    const ForkGuard::Call in_progress(fork_guard_);
    const std::lock_guard<std::mutex> lock(published_mutex_);
    *stats += published_;
    model().AddTo(stats);
  }

 private:
  const CausalLM& model() const { return cache_.model(); }

  // work(counters) while no other call is at work; returns what it returns.
  template <typename Work>
  int64_t Alone(Work work) {
    const ForkGuard::Call in_progress(fork_guard_);
    return queue_.RunAlone([&] {
      Stats counters;
      const Ending end{*this, counters};
      return work(&counters);
    });
  }
  struct Ending {
    CachedScorer& scorer;
    const Stats& counters;
    ~Ending() { scorer.EndWork(counters); }
  };

  void EndWork(const Stats& counters) noexcept {
    cache_.Trim();
    Publish(counters);
  }

  // What stats() shows; taken from the cache while nobody works on it.
  void Publish(const Stats& counters) noexcept {
    const std::lock_guard<std::mutex> lock(published_mutex_);
    published_ += counters;
    published_.evictions = cache_.evictions();
    published_.cache_bytes = cache_.bytes();
    published_.cache_bytes_limit = options_.kv_cache_bytes;
    published_.cached_tokens = cache_.cached_tokens();
  }

  mutable ForkGuard fork_guard_;
  const PathScorerOptions options_;
  PathCache cache_;  // of the thread that works
  CallQueue queue_;

  mutable std::mutex published_mutex_;  // held for moments only
  Stats published_;
};

}  // namespace

std::unique_ptr<PathScorer> CachedPathScorer(std::unique_ptr<CausalLM> model,
                                             PathScorerOptions options) {
  return std::make_unique<CachedScorer>(std::move(model), options);
}

}  // namespace lmfusion
