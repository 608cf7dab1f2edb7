#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "path_piece.h"
#include "path_scorer.h"
#include "stopwatch.h"
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

struct Request {
  const TokenPaths* paths;
  const std::string* cache_namespace;
  PathScores* scores;
  std::vector<std::vector<bool>>* reused;
  std::exception_ptr error;
  bool done = false;
};

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
                   std::vector<std::vector<bool>>* reused) override {
    CheckPaths(paths, model_->description());
    PathScores scores;
    scores.log_probs.resize(paths.paths.size());
    scores.word_end.assign(paths.paths.size(), 0.0f);
    if (reused != nullptr) reused->resize(paths.paths.size());
    Request request{&paths, &cache_namespace, &scores, reused, nullptr};

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
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !working_; });
    tree_.Clear();
    Publish({});
  }

 private:
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
    tree_.Trim();
    if (roots_.size() > kMostNamespaces) ForgetEmptyNamespaces();
    Publish(counts);
  }

  void WorkJointly(const std::vector<Request*>& requests, PathPiece::Counts* counts) {
    switch (options_.mode) {
      case Mode::kTree:
        return WorkOffTree(requests, counts);
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
    std::unique_ptr<Piece> piece;
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
        if (piece == nullptr) piece = std::make_unique<Piece>(tree_, *model_, options_);
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
      TokenPaths::Tokens context = Tokens(paths[i]);
      context.resize(paths[i].scored_begin);
      groups[std::move(context)].push_back(i);
    }
    const NodeId root = Root(*request->cache_namespace);
    for (const auto& [context, members] : groups) {
      const PrivateTokens prefix(tree_, root, context);
      PathPiece prefill(tree_, *model_, options_.max_batch_tokens);
      prefill.Visit(prefix.last());
      prefill.WantComputed(prefix.last());
      prefill.Compute(counts);
      for (const size_t i : members) {
        const TokenPaths::Tokens tokens = Tokens(paths[i]);
        const PrivateTokens word(tree_, prefix.last(),
                                 {tokens.begin() + paths[i].scored_begin, tokens.end()});
        Piece piece(tree_, *model_, options_);
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
      Piece piece(tree_, *model_, options_);
      size_t end = begin;
      for (int64_t tokens = 0; end < paths.size(); ++end) {
        CheckCapacity(paths[end]);
        tokens += paths[end].size();
        if (end > begin && tokens > most) break;
        chains.push_back(std::make_unique<PrivateTokens>(tree_, Root(*request->cache_namespace),
                                                         Tokens(paths[end])));
        piece.Add(chains.back()->last(), request, end);
      }
      piece.Run(counts);
      begin = end;
    }
  }

  // Nodes that nobody else finds, for the modes that do not share; they stay while this lives.
  class PrivateTokens {
   public:
    PrivateTokens(TokenTree& tree, NodeId from, const TokenPaths::Tokens& tokens)
        : tree_(tree), last_(from) {
      for (const int32_t token : tokens) {
        last_ = tree_.AddPrivate(last_, token);
        tree_.Pin(last_);
        nodes_.push_back(last_);
      }
    }
    ~PrivateTokens() {
      for (size_t i = nodes_.size(); i-- > 0;) tree_.Unpin(nodes_[i]);
      if (!nodes_.empty()) tree_.RemoveSubtree(nodes_.front());
    }
    PrivateTokens(const PrivateTokens&) = delete;
    PrivateTokens& operator=(const PrivateTokens&) = delete;
    NodeId last() const { return last_; }

   private:
    TokenTree& tree_;
    NodeId last_;
    std::vector<NodeId> nodes_;
  };

  // A piece that knows whose paths it holds.
  class Piece {
   public:
    Piece(TokenTree& tree, CausalLM& model, const PathScorerOptions& options)
        : tree_(tree), piece_(tree, model, options.max_batch_tokens) {}

    // A path from `root`, found or made; the prefix that paths share is walked once.
    void AddShared(NodeId root, Request* request, size_t index) {
      const Path& path = request->paths->paths[index];
      NodeId node = root;
      if (path.prefix != nullptr && path.prefix_size > 0) {
        const auto key = std::make_tuple(root, path.prefix.get(), path.prefix_size);
        const auto [found, is_new] = prefixes_.emplace(key, root);
        if (is_new) found->second = Walk(root, path.prefix->data(), path.prefix_size);
        node = found->second;
      }
      Add(Walk(node, path.tail.data(), static_cast<int32_t>(path.tail.size())), request, index);
    }

    void Add(NodeId last, Request* request, size_t index) {
      const Path& path = request->paths->paths[index];
      piece_.Visit(last);
      piece_.WantScores(last, path.size() - path.scored_begin);
      if (path.ends_word) piece_.WantWordEnd(last);
      members_.push_back({request, index, last});
    }

    int64_t size() const { return static_cast<int64_t>(piece_.size()); }

    void Run(PathPiece::Counts* counts) {
      for (const Member& member : members_) ReadReused(member);
      piece_.Compute(counts);
      for (const Member& member : members_) ReadScores(member);
      piece_.Close();
    }

   private:
    struct Member {
      Request* request;
      size_t index;
      NodeId last;
    };

    NodeId Walk(NodeId node, const int32_t* tokens, int32_t count) {
      for (int32_t i = 0; i < count; ++i) node = tree_.FindOrAdd(node, tokens[i]);
      piece_.Visit(node);
      return node;
    }

    void ReadScores(const Member& member) const {
      const Path& path = member.request->paths->paths[member.index];
      std::vector<float>& log_probs = member.request->scores->log_probs[member.index];
      log_probs.resize(path.size() - path.scored_begin);
      NodeId node = member.last;
      for (size_t i = log_probs.size(); i-- > 0; node = tree_.parent(node)) {
        log_probs[i] = tree_.log_prob(node);
      }
      if (path.ends_word) {
        member.request->scores->word_end[member.index] = tree_.word_end(member.last);
      }
    }

    void ReadReused(const Member& member) const {
      if (member.request->reused == nullptr) return;
      std::vector<bool>& reused = (*member.request->reused)[member.index];
      reused.resize(member.request->paths->paths[member.index].size());
      NodeId node = member.last;
      for (size_t i = reused.size(); i-- > 0; node = tree_.parent(node)) {
        reused[i] = piece_.was_computed(node);
      }
    }

    TokenTree& tree_;
    PathPiece piece_;
    std::vector<Member> members_;
    std::map<std::tuple<NodeId, const TokenPaths::Tokens*, int32_t>, NodeId> prefixes_;
  };

  void CheckCapacity(const Path& path) const {
    if (path.size() <= capacity_) return;
    throw CacheBudgetError("a text of " + std::to_string(path.size()) +
                           " tokens does not fit kv_cache_bytes = " +
                           std::to_string(options_.kv_cache_bytes) + ", which holds " +
                           std::to_string(capacity_) + "; give it more bytes");
  }

  static TokenPaths::Tokens Tokens(const Path& path) {
    TokenPaths::Tokens tokens;
    if (path.prefix != nullptr) {
      tokens.assign(path.prefix->begin(), path.prefix->begin() + path.prefix_size);
    }
    tokens.insert(tokens.end(), path.tail.begin(), path.tail.end());
    return tokens;
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
