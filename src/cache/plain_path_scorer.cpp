#include <algorithm>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "base/fork_guard.h"
#include "base/stopwatch.h"
#include "cache/call_queue.h"
#include "cache/path_scorer.h"
#include "tree/plain_lm.h"

namespace lmfusion {
namespace {

using Path = TokenPaths::Path;

class PlainScorer final : public PathScorer {
 public:
  PlainScorer(std::unique_ptr<PlainLM> model, PathScorerOptions options)
      : model_(std::move(model)), options_(options) {}

  PathScores Score(const TokenPaths& paths, const std::string&, CallReport* report) override {
    const ForkGuard::Call in_progress(fork_guard_);
    CheckPaths(paths, model_->description());
    PathScores scores(paths);
    if (report != nullptr) {
      *report = CallReport();
      for (const Path& path : paths.paths) report->reused.emplace_back(path.size(), false);
      report->tokens_computed = TokenCount(paths);
    }
    // Paths of like length share a batch, so that little of it is padding.
    std::vector<size_t> order(paths.paths.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return paths.paths[a].size() < paths.paths[b].size();
    });
    queue_.RunAlone([&] { ScoreBatches(paths, order, &scores); });
    return scores;
  }

  const ModelDescription& description() const override { return model_->description(); }

  void AddTo(Stats* stats) const override {
    const ForkGuard::Call in_progress(fork_guard_);
    const std::lock_guard<std::mutex> lock(counters_mutex_);
    *stats += counters_;
    stats->cached = false;
  }

  void Clear(const std::string*) override {}

 private:
  void ScoreBatches(const TokenPaths& paths, const std::vector<size_t>& order, PathScores* scores) {
    for (size_t begin = 0; begin < order.size();) {
      size_t end = begin + 1;
      while (end < order.size() && (end - begin + 1) * paths.paths[order[end]].size() <=
                                       static_cast<size_t>(options_.max_batch_tokens)) {
        ++end;
      }
      ScoreBatch(paths, {order.begin() + begin, order.begin() + end}, scores);
      begin = end;
      CallWatch* const watch = CallWatch::Current();
      if (watch != nullptr) watch->Report(begin, order.size());
    }
  }

  void ScoreBatch(const TokenPaths& paths, const std::vector<size_t>& members, PathScores* scores) {
    std::vector<std::vector<int32_t>> tokens;
    std::vector<size_t> kept;  // an empty path has nothing to score
    Stats counters;
    bool word_ends = false;
    for (const size_t i : members) {
      const Path& path = paths.paths[i];
      if (path.size() == 0) continue;
      kept.push_back(i);
      tokens.push_back(path.tokens());
      word_ends = word_ends || path.ends_word;
      counters.tokens_computed += path.size();
    }
    if (tokens.empty()) return;
    Stopwatch watch;
    const PlainLM::Answers answers = model_->Score(tokens, word_ends);
    counters.forward_seconds = watch.Lap();
    counters.forwards = 1;
    {
      const std::lock_guard<std::mutex> lock(counters_mutex_);
      counters_ += counters;
    }
    for (size_t k = 0; k < kept.size(); ++k) {
      const Path& path = paths.paths[kept[k]];
      const std::vector<float>& all = answers.log_probs[k];  // of token 1 on
      if (path.scored_begin < path.size()) {
        scores->log_probs[kept[k]].assign(all.begin() + path.scored_begin - 1, all.end());
      }
      if (path.ends_word) scores->word_end[kept[k]] = answers.word_ends[k];
    }
  }

  mutable ForkGuard fork_guard_;
  const std::unique_ptr<PlainLM> model_;
  const PathScorerOptions options_;
  CallQueue queue_;                    // calls use the model one after another
  mutable std::mutex counters_mutex_;  // held for moments only
  Stats counters_;
};

}  // namespace

std::unique_ptr<PathScorer> PlainPathScorer(std::unique_ptr<PlainLM> model,
                                            PathScorerOptions options) {
  return std::make_unique<PlainScorer>(std::move(model), options);
}

}  // namespace lmfusion
