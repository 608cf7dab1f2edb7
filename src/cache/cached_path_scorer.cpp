#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/stopwatch.h"
#include "cache/cache_snapshot.h"
#include "cache/path_piece.h"
#include "cache/path_scorer.h"
#include "cache/request_piece.h"
#include "lmfusion/errors.h"
#include "tree/token_tree.h"

// Note [Calls that wait run as one]
// A forward pass of few tokens takes as long as one of some more, so calls of several threads
// share forward passes. A call joins the queue; if nobody works, it takes all that wait, itself
// included, and works them off as one list of paths; the others sleep until theirs is done. If the
// joint work fails, every call of the list is tried alone, so that each gets its own error.

namespace lmfusion {
namespace {

using Path = TokenPaths::Path;

constexpr size_t kMostNamespaces = 1024;  // more are kept only while they hold something

class Scorer final : public PathScorer {
 public:
  Scorer(std::unique_ptr<CausalLM> model, PathScorerOptions options)
      : model_(std::move(model)),
        options_(options),
        capacity_(options.kv_cache_bytes / (model_->slot_bytes() + TokenTree::node_bytes())),
        tree_(capacity_, model_->slot_bytes(), options.kv_cache_bytes) {
    if (capacity_ < 2) {
      throw CacheBudgetError("kv_cache_bytes = " + std::to_string(options.kv_cache_bytes) +
                             " does not hold two tokens of this model; a token takes " +
                             std::to_string(model_->slot_bytes() + TokenTree::node_bytes()) +
                             " bytes");
    }
    model_->Reserve(capacity_);
  }

  PathScores Score(const TokenPaths& paths, const std::string& cache_namespace,
                   CallReport* report) override {
    CheckPaths(paths, model_->description());
    PathScores scores(paths);
    Request request;
    request.paths = &paths;
    request.cache_namespace = &cache_namespace;
    request.scores = &scores;
    request.report = report;

    std::unique_lock<std::mutex> lock(mutex_);
    waiting_.push_back(&request);
    changed_.wait(lock, [&] { return request.done || !working_; });
    if (!request.done) {
      working_ = true;
      std::vector<Request*> requests = std::exchange(waiting_, {});
      lock.unlock();
      Work(requests);
      lock.lock();
      working_ = false;
      for (Request* each : requests) each->done = true;
      changed_.notify_all();
    }
    lock.unlock();
    if (request.error) std::rethrow_exception(request.error);
    return scores;
  }

  const ModelDescription& description() const override { return model_->description(); }

  void AddTo(Stats* stats) const override {
    const std::lock_guard<std::mutex> lock(published_mutex_);
    stats->tokens_computed += counts_.computed;
    stats->tokens_reused += counts_.reused;
    stats->forwards += counts_.forwards;
    stats->evictions += evictions_ - evictions_before_;
    stats->tree_seconds += counts_.tree_seconds;
    stats->forward_seconds += counts_.forward_seconds;
    stats->output_seconds += counts_.output_seconds;
    stats->cache_bytes = cache_bytes_;
    stats->cache_bytes_limit = options_.kv_cache_bytes;
    stats->cached_tokens = cached_tokens_;
    model_->AddTo(stats);
  }

  void ResetStats() override {
    const std::lock_guard<std::mutex> lock(published_mutex_);
    counts_ = PathPiece::Counts();
    evictions_before_ = evictions_;
  }

  void Clear() override {
    Alone([&](PathPiece::Counts*) {
      tree_.Clear();
      return 0;
    });
  }

  int64_t Prime(const TokenPaths& paths, const std::string& cache_namespace) override {
    if (options_.mode != Mode::kTree) return PathScorer::Prime(paths, cache_namespace);
    CheckPaths(paths, model_->description());
    PathScores scores(paths);
    Request request;
    request.paths = &paths;
    request.cache_namespace = &cache_namespace;
    request.scores = &scores;
    request.prime = true;
    return Alone([&](PathPiece::Counts* counts) {
      const NodeId root = Root(cache_namespace);
      CheckHolds(NeededBytes(paths, model_->slot_bytes()));
      // What is not part of these paths was used before all of them, so it makes room first. What
      // is part of them and has a slot it does not need would not.
      if (!Holds(NeededBytes(paths, model_->slot_bytes(), &tree_, root))) tree_.Clear();
      WorkOffTree({&request}, counts);
      return static_cast<int64_t>(counts->computed);
    });
  }

  int64_t Save(const std::string& file, const TokenPaths* paths,
               const std::string& cache_namespace) override {
    if (options_.mode != Mode::kTree) return PathScorer::Save(file, paths, cache_namespace);
    return Alone([&](PathPiece::Counts*) {
      const NodeId root = Root(cache_namespace);
      return WriteSnapshot(
          file, OwnerOf(*model_, options_.word_beginnings), tree_,
          paths == nullptr ? NodesBelow(tree_, root) : NodesOf(*paths, tree_, root), *model_);
    });
  }

  int64_t Load(const std::string& file, const std::string& cache_namespace) override {
    if (options_.mode != Mode::kTree) return PathScorer::Load(file, cache_namespace);
    return Alone([&](PathPiece::Counts*) {
      const NodeId root = Root(cache_namespace);
      return ReadSnapshot(file, OwnerOf(*model_, options_.word_beginnings), tree_, root, *model_,
                          options_.kv_cache_bytes - RootBytes());
    });
  }

 private:
  // Calls `work`, which gives a number of tokens, while nobody else works; calls that come
  // meanwhile wait.
  template <typename AnyWork>
  int64_t Alone(AnyWork work) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !working_; });
    PathPiece::Counts counts;
    std::exception_ptr error;
    int64_t tokens = 0;
    try {
      tokens = work(&counts);
    } catch (...) {
      error = std::current_exception();
    }
    FinishWork(counts);
    if (error) std::rethrow_exception(error);
    return tokens;
  }

  int64_t RootBytes() const {
    return static_cast<int64_t>(roots_.size()) * TokenTree::node_bytes();
  }

  // bytes: of all but the roots.
  bool Holds(int64_t bytes) const { return bytes + RootBytes() <= options_.kv_cache_bytes; }

  void CheckHolds(int64_t bytes) const {
    if (Holds(bytes)) return;
    throw CacheBudgetError(
        "what is to be held at once needs kv_cache_bytes = " + std::to_string(bytes + RootBytes()) +
        ", and it is " + std::to_string(options_.kv_cache_bytes) +
        "; give it more bytes, or fewer contexts and words");
  }

  // --- the leader's work; one thread at a time, without mutex_ ---

  void Work(const std::vector<Request*>& requests) {
    PathPiece::Counts counts;
    try {
      WorkJointly(requests, &counts);
    } catch (...) {
      for (Request* request : requests) {
        try {
          if (requests.size() == 1) throw;
          WorkJointly({request}, &counts);
        } catch (...) {
          request->error = std::current_exception();
        }
      }
    }
    FinishWork(counts);
  }

  void FinishWork(const PathPiece::Counts& counts) {
    tree_.Trim();
    if (roots_.size() > kMostNamespaces) ForgetEmptyNamespaces();
    Publish(counts);
  }

  void WorkJointly(const std::vector<Request*>& requests, PathPiece::Counts* counts) {
    for (Request* request : requests) {
      if (request->report == nullptr) continue;
      *request->report = CallReport();
      request->report->reused.resize(request->paths->paths.size());
    }
    switch (options_.mode) {
      case Mode::kTree: return WorkOffTree(requests, counts);
      case Mode::kGrouped:
        for (Request* request : requests) WorkOffGrouped(request, counts);
        return;
      case Mode::kUncached:
        for (Request* request : requests) WorkOffUncached(request, counts);
        return;
    }
  }

  // As many paths a piece as the cache holds, nearly always all.
  void WorkOffTree(const std::vector<Request*>& requests, PathPiece::Counts* counts) {
    std::unique_ptr<RequestPiece> piece;
    for (Request* request : requests) {
      const NodeId root = Root(*request->cache_namespace);
      for (size_t i = 0; i < request->paths->paths.size(); ++i) {
        const Path& path = request->paths->paths[i];
        CheckCapacity(path);
        if (piece != nullptr && piece->size() + path.size() > capacity_) {
          // Shared tokens are counted twice here, which matters only near the limit.
          piece->Run(counts);
          piece = nullptr;
        }
        if (piece == nullptr) {
          piece = std::make_unique<RequestPiece>(tree_, *model_, options_.max_batch_tokens);
        }
        piece->AddShared(root, request, i);
      }
    }
    if (piece != nullptr) piece->Run(counts);
  }

  // The literal plan: one prefill per distinct context and call, then one pass per word.
  void WorkOffGrouped(Request* request, PathPiece::Counts* counts) {
    std::map<TokenPaths::Tokens, std::vector<size_t>> groups;
    const std::vector<Path>& paths = request->paths->paths;
    for (size_t i = 0; i < paths.size(); ++i) {
      CheckCapacity(paths[i]);
      TokenPaths::Tokens context = paths[i].tokens();
      context.resize(paths[i].scored_begin);
      groups[std::move(context)].push_back(i);
    }
    const NodeId root = Root(*request->cache_namespace);
    for (const auto& [context, members] : groups) {
      const PrivateTokens prefix(tree_, root, context);
      PathPiece prefill(tree_, *model_, options_.max_batch_tokens);
      prefill.Visit(prefix.last());
      prefill.WantComputed(prefix.last());
      const uint64_t before = counts->computed;
      prefill.Compute(counts);
      if (request->report != nullptr) request->report->tokens_computed += counts->computed - before;
      for (const size_t i : members) {
        const TokenPaths::Tokens tokens = paths[i].tokens();
        const PrivateTokens word(tree_, prefix.last(),
                                 {tokens.begin() + paths[i].scored_begin, tokens.end()});
        RequestPiece piece(tree_, *model_, options_.max_batch_tokens);
        piece.Add(word.last(), request, i);
        piece.Run(counts);
      }
    }
  }

  // Every path on its own; several a forward pass, as far as they fit.
  void WorkOffUncached(Request* request, PathPiece::Counts* counts) {
    const std::vector<Path>& paths = request->paths->paths;
    const int64_t most = std::min(capacity_, options_.max_batch_tokens);
    for (size_t begin = 0; begin < paths.size();) {
      std::vector<std::unique_ptr<PrivateTokens>> chains;
      RequestPiece piece(tree_, *model_, options_.max_batch_tokens);
      size_t end = begin;
      for (int64_t tokens = 0; end < paths.size(); ++end) {
        CheckCapacity(paths[end]);
        tokens += paths[end].size();
        if (end > begin && tokens > most) break;
        chains.push_back(std::make_unique<PrivateTokens>(tree_, Root(*request->cache_namespace),
                                                         paths[end].tokens()));
        piece.Add(chains.back()->last(), request, end);
      }
      piece.Run(counts);
      begin = end;
    }
  }

  void CheckCapacity(const Path& path) const {
    if (path.size() <= capacity_) return;
    throw CacheBudgetError(
        "a text of " + std::to_string(path.size()) +
        " tokens does not fit kv_cache_bytes = " + std::to_string(options_.kv_cache_bytes) +
        ", which holds " + std::to_string(capacity_) + "; give it more bytes");
  }

  NodeId Root(const std::string& cache_namespace) {
    const auto [found, is_new] = roots_.emplace(cache_namespace, kNoNode);
    if (is_new) found->second = tree_.NewRoot();
    return found->second;
  }

  void ForgetEmptyNamespaces() {
    for (auto it = roots_.begin(); it != roots_.end();) {
      if (tree_.has_children(it->second)) {
        ++it;
      } else {
        tree_.RemoveSubtree(it->second);
        it = roots_.erase(it);
      }
    }
  }

  // What stats() shows; taken from the tree while nobody works on it.
  void Publish(const PathPiece::Counts& counts) {
    const std::lock_guard<std::mutex> lock(published_mutex_);
    counts_.computed += counts.computed;
    counts_.reused += counts.reused;
    counts_.forwards += counts.forwards;
    counts_.tree_seconds += counts.tree_seconds;
    counts_.forward_seconds += counts.forward_seconds;
    counts_.output_seconds += counts.output_seconds;
    evictions_ = tree_.evictions();
    cache_bytes_ = tree_.bytes();
    cached_tokens_ = tree_.slots_in_use();
  }

  const std::unique_ptr<CausalLM> model_;
  const PathScorerOptions options_;
  const int64_t capacity_;  // tokens

  // Used by the leader alone.
  TokenTree tree_;
  std::map<std::string, NodeId> roots_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Request*> waiting_;
  bool working_ = false;

  mutable std::mutex published_mutex_;
  PathPiece::Counts counts_;
  int64_t evictions_ = 0, evictions_before_ = 0, cache_bytes_ = 0, cached_tokens_ = 0;
};

}  // namespace

std::unique_ptr<PathScorer> CachedPathScorer(std::unique_ptr<CausalLM> model,
                                             PathScorerOptions options) {
  return std::make_unique<Scorer>(std::move(model), options);
}

}  // namespace lmfusion
