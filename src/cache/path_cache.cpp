#include "cache/path_cache.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "cache/call_chunk.h"
#include "cache/needed_bytes.h"
#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

using Path = TokenPaths::Path;

// A root of a call's own: what is below it is shared with nobody and goes with it.
class PrivateRoot {
 public:
  explicit PrivateRoot(TokenTree& tree) : tree_(tree), root_(tree.NewRoot()) {}
  ~PrivateRoot() { tree_.RemoveSubtree(root_); }
  PrivateRoot(const PrivateRoot&) = delete;
  PrivateRoot& operator=(const PrivateRoot&) = delete;
  NodeId id() const { return root_; }

 private:
  TokenTree& tree_;
  const NodeId root_;
};

}  // namespace

PathCache::PathCache(std::unique_ptr<CausalLM> model, PathScorerOptions options)
    : model_(std::move(model)),
      options_(options),
      capacity_(options.kv_cache_bytes / (model_->slot_bytes() + TokenTree::node_bytes())),
      owner_(OwnerOf(*model_, options.word_beginnings)),
      tree_(capacity_, model_->slot_bytes(), options.kv_cache_bytes),
      namespaces_(tree_) {
  if (capacity_ < 2) {
    throw CacheBudgetError("kv_cache_bytes = " + std::to_string(options.kv_cache_bytes) +
                           " does not hold two tokens of this model; a token takes " +
                           std::to_string(model_->slot_bytes() + TokenTree::node_bytes()) +
                           " bytes");
  }
  model_->Reserve(capacity_);
}

void PathCache::DoCalls(Call* first, Stats* counters) noexcept {
  at_work_ = first;
  const auto fail = [](Call* call) {
    call->error = std::current_exception();
    call->settled = true;
  };
  try {
    return Try(first, nullptr, counters);
  } catch (const EndedEarly&) {
    return;
  } catch (...) {
    if (first->next == nullptr) return fail(first);
  }
  for (Call* call = first; call != nullptr; call = call->next) {
    if (call->settled) continue;
    try {
      Try(call, call->next, counters);
    } catch (const EndedEarly&) {
      return;
    } catch (...) {
      fail(call);
    }
  }
}

void PathCache::Try(Call* first, const Call* end, Stats* counters) {
  for (Call* call = first; call != end; call = call->next) {
    call->paths_done = 0;
    if (call->report == nullptr) continue;
    *call->report = CallReport();
    call->report->reused.resize(call->paths->paths.size());
  }
  const uint64_t reused = counters->tokens_reused;
  try {
    if (options_.mode == Mode::kTree) InTree(first, end, counters);
    for (Call* call = first; call != end; call = call->next) {
      if (options_.mode == Mode::kGrouped) Grouped(call, counters);
      if (options_.mode == Mode::kUncached) Uncached(call, counters);
      call->settled = true;
    }
  } catch (...) {
    counters->tokens_reused = reused;
    throw;
  }
}

// Every distinct prefix once, in as few chunks as the cache allows.
void PathCache::InTree(Call* first, const Call* end, Stats* counters) {
  std::optional<CallChunk> chunk;
  int64_t room = capacity_ - UseHeld();
  for (Call* call = first; call != end; call = call->next) {
    const NodeId root = namespaces_.Root(*call->cache_namespace);
    for (size_t i = 0; i < call->paths->paths.size(); ++i) {
      const Path& path = call->paths->paths[i];
      CheckCapacity(path);
      // Shared tokens are counted twice here, and those that are held, which matters only near the
      // limit. A path that does not fit beside what is held is alone, and takes what it needs.
      if (chunk && chunk->size() + path.size() > room) {
        chunk->Run(counters);
        chunk.reset();
        room = capacity_ - UseHeld();
      }
      if (!chunk) chunk.emplace(tree_, *model_, numbers_, options_.max_batch_tokens, at_work_);
      chunk->Add(root, call, i);
    }
  }
  if (chunk) chunk->Run(counters);
}

// The literal plan: one prefill per distinct context and call, then one pass per word.
void PathCache::Grouped(Call* call, Stats* counters) {
  std::map<TokenPaths::Tokens, std::vector<size_t>> groups;
  const std::vector<Path>& paths = call->paths->paths;
  for (size_t i = 0; i < paths.size(); ++i) {
    CheckCapacity(paths[i]);
    TokenPaths::Tokens context = paths[i].tokens();
    context.resize(paths[i].scored_begin);
    groups[std::move(context)].push_back(i);
  }
  const auto run = [&](NodeId root, Call* of, size_t path_index) {
    CallChunk chunk(tree_, *model_, numbers_, options_.max_batch_tokens, at_work_);
    chunk.Add(root, of, path_index);
    chunk.Run(counters);
  };
  for (const auto& [context, members] : groups) {
    const PrivateRoot root(tree_);
    TokenPaths prefix;
    prefix.paths.resize(1);
    prefix.paths[0].tail = context;
    prefix.paths[0].scored_begin = prefix.paths[0].size();
    PathScores nothing(prefix);
    CallReport report;
    report.reused.resize(1);
    Call prefill(prefix, *call->cache_namespace, &nothing, &report);
    prefill.prime = true;
    run(root.id(), &prefill, 0);
    if (call->report != nullptr) call->report->tokens_computed += report.tokens_computed;
    NodeId last = root.id();
    for (const int32_t token : context) last = tree_.Find(last, token);
    for (const size_t i : members) {
      run(root.id(), call, i);
      tree_.RemoveChildren(last);  // the next word shares nothing with this one
    }
  }
}

// Every path on its own; several a forward pass, as far as they fit.
void PathCache::Uncached(Call* call, Stats* counters) {
  const std::vector<Path>& paths = call->paths->paths;
  const int64_t most = std::min(capacity_, options_.max_batch_tokens);
  for (size_t begin = 0; begin < paths.size();) {
    std::vector<std::unique_ptr<PrivateRoot>> roots;
    CallChunk chunk(tree_, *model_, numbers_, options_.max_batch_tokens, at_work_);
    size_t end = begin;
    for (int64_t tokens = 0; end < paths.size(); ++end) {
      CheckCapacity(paths[end]);
      tokens += paths[end].size();
      if (end > begin && tokens > most) break;
      roots.push_back(std::make_unique<PrivateRoot>(tree_));
      chunk.Add(roots.back()->id(), call, end);
    }
    chunk.Run(counters);
    begin = end;
  }
}

void PathCache::ScoreUncached(const TokenPaths& paths, PathScores* scores, Stats* counters) {
  const std::string unused;
  Call call(paths, unused, scores);
  at_work_ = &call;
  try {
    Uncached(&call, counters);
  } catch (const EndedEarly&) {
    std::rethrow_exception(call.ended_by);
  }
}

void PathCache::FillKnown(const TokenPaths& paths, const std::string& cache_namespace,
                          PathScores* known) const {
  const NodeId root = namespaces_.Find(cache_namespace);
  if (root == kNoNode) return;
  for (size_t i = 0; i < paths.paths.size(); ++i) {
    const Path& path = paths.paths[i];
    NodeId node = root;
    int32_t position = 0;
    for (const int32_t token : path.tokens()) {
      node = tree_.Find(node, token);
      if (node == kNoNode) break;
      if (position >= path.scored_begin) {
        known->log_probs[i][position - path.scored_begin] = tree_.log_prob(node);
      }
      ++position;
    }
    if (path.ends_word && node != kNoNode) known->word_end[i] = tree_.word_end(node);
  }
}

int64_t PathCache::Prime(const TokenPaths& paths, const std::string& cache_namespace,
                         Stats* counters) {
  const NodeId root = namespaces_.Root(cache_namespace);
  CheckHolds(NeededBytes(paths, model_->slot_bytes()));
  // What is not part of these paths was used before all of them, so it makes room first. What is
  // part of them and has a slot it does not need would not.
  if (!Holds(NeededBytes(paths, model_->slot_bytes(), &tree_, root))) tree_.Clear();
  PathScores scores(paths);
  Call call(paths, cache_namespace, &scores);
  call.prime = true;
  at_work_ = &call;
  const uint64_t before = counters->tokens_computed;
  try {
    InTree(&call, nullptr, counters);
  } catch (const EndedEarly&) {
    std::rethrow_exception(call.ended_by);
  }
  return static_cast<int64_t>(counters->tokens_computed - before);
}

int64_t PathCache::Save(const std::string& file, const TokenPaths* paths,
                        const std::string& cache_namespace) {
  const NodeId root = namespaces_.Root(cache_namespace);
  return WriteSnapshot(file, owner_, tree_,
                       paths == nullptr ? NodesBelow(tree_, root) : NodesOf(*paths, tree_, root),
                       *model_);
}

int64_t PathCache::Load(const std::string& file, const std::string& cache_namespace) {
  const NodeId root = namespaces_.Root(cache_namespace);
  return ReadSnapshot(file, owner_, tree_, root, numbers_, *model_,
                      options_.kv_cache_bytes - namespaces_.bytes());
}

void PathCache::Clear(const std::string* cache_namespace) noexcept {
  if (cache_namespace == nullptr) {
    tree_.Clear();
  } else if (const NodeId root = namespaces_.Find(*cache_namespace); root != kNoNode) {
    tree_.RemoveChildren(root);
  }
}

int64_t PathCache::UseHeld() noexcept {
  int64_t tokens = 0;
  held_.ForEach([&](const HeldPaths::Held& held) {
    const NodeId root = namespaces_.Find(held.cache_namespace);
    if (root == kNoNode) return;
    NodeId last = root;
    for (const int32_t token : *held.tokens) {
      const NodeId next = tree_.Find(last, token);
      if (next == kNoNode) break;
      tree_.Pin(next);
      last = next;
      ++tokens;
    }
    while (last != root) {  // children first
      const NodeId parent = tree_.parent(last);
      tree_.Unpin(last);
      last = parent;
    }
  });
  return tokens;
}

void PathCache::CheckHolds(int64_t bytes) const {
  if (Holds(bytes)) return;
  throw CacheBudgetError("what is to be held at once needs kv_cache_bytes = " +
                         std::to_string(bytes + namespaces_.bytes()) + ", and it is " +
                         std::to_string(options_.kv_cache_bytes) +
                         "; give it more bytes, or fewer contexts and words");
}

void PathCache::CheckCapacity(const Path& path) const {
  if (path.size() <= capacity_) return;
  throw CacheBudgetError(
      "a text of " + std::to_string(path.size()) +
      " tokens does not fit kv_cache_bytes = " + std::to_string(options_.kv_cache_bytes) +
      ", which holds " + std::to_string(capacity_) + "; give it more bytes");
}

}  // namespace lmfusion
