#include "cache/request_piece.h"

namespace lmfusion {

using Path = TokenPaths::Path;

std::vector<NodeId> NodesOf(const TokenPaths& paths, TokenTree& tree, NodeId root) {
  std::vector<NodeId> nodes;
  tree.BeginMarks();
  for (const Path& path : paths.paths) {
    NodeId node = root;
    for (const int32_t token : path.tokens()) {
      node = tree.Find(node, token);
      if (node == kNoNode) break;
      if (tree.mark(node) >= 0) continue;
      tree.set_mark(node, 0);
      nodes.push_back(node);
    }
  }
  return nodes;
}

int64_t NeededBytes(const TokenPaths& paths, int64_t slot_bytes, const TokenTree* held,
                    NodeId root) {
  TokenTree tree(0, 0, 0);  // of the paths alone; a mark is a slot
  const NodeId top = tree.NewRoot();
  int64_t slots = 0;
  tree.BeginMarks();
  for (const Path& path : paths.paths) {
    NodeId node = top, held_node = held == nullptr ? kNoNode : root;
    for (const int32_t token : path.tokens()) {
      node = tree.FindOrAdd(node, token);
      if (held_node != kNoNode) held_node = held->Find(held_node, token);
    }
    // The last token of a text needs no slot, unless something is asked of what follows it.
    const bool last = path.ends_word || path.scored_begin >= path.size() ||
                      (held_node != kNoNode && held->computed(held_node));
    for (NodeId at = last || node == top ? node : tree.parent(node); at != top && tree.mark(at) < 0;
         at = tree.parent(at)) {
      tree.set_mark(at, 0);
      ++slots;
    }
  }
  return slots * slot_bytes + (tree.node_count() - 1) * TokenTree::node_bytes();
}

void RequestPiece::AddShared(NodeId root, Request* request, size_t index) {
  const Path& path = request->paths->paths[index];
  const size_t begin = piece_.size();
  NodeId node = root;
  if (path.prefix != nullptr && path.prefix_size > 0) {
    const auto key = std::make_tuple(root, path.prefix.get(), path.prefix_size);
    const auto [found, is_new] = prefixes_.emplace(key, root);
    if (is_new) found->second = Walk(root, path.prefix->data(), path.prefix_size);
    node = found->second;
  }
  Add(Walk(node, path.tail.data(), static_cast<int32_t>(path.tail.size())), request, index);
  members_.back().begin = begin;
}

void RequestPiece::Add(NodeId last, Request* request, size_t index) {
  const Path& path = request->paths->paths[index];
  const size_t begin = piece_.size();
  piece_.Visit(last);
  piece_.WantScores(last, path.size() - path.scored_begin);
  if (path.ends_word) piece_.WantWordEnd(last);
  if (request->prime && path.scored_begin >= path.size()) piece_.WantNext(last);
  members_.push_back({request, index, last, begin, piece_.size()});
}

void RequestPiece::Run(PathPiece::Counts* counts) {
  for (const Member& member : members_) ReadReused(member);
  piece_.Compute(counts);
  for (const Member& member : members_) {
    ReadScores(member);
    CountComputed(member);
  }
  piece_.Close();
}

NodeId RequestPiece::Walk(NodeId node, const int32_t* tokens, int32_t count) {
  for (int32_t i = 0; i < count; ++i) node = tree_.FindOrAdd(node, tokens[i]);
  piece_.Visit(node);
  return node;
}

void RequestPiece::ReadScores(const Member& member) const {
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

void RequestPiece::ReadReused(const Member& member) const {
  if (member.request->report == nullptr) return;
  std::vector<bool>& reused = member.request->report->reused[member.index];
  reused.resize(member.request->paths->paths[member.index].size());
  NodeId node = member.last;
  for (size_t i = reused.size(); i-- > 0; node = tree_.parent(node)) {
    reused[i] = piece_.was_computed(node);
  }
}

void RequestPiece::CountComputed(const Member& member) const {
  if (member.request->report == nullptr) return;
  for (size_t i = member.begin; i < member.end; ++i) {
    if (piece_.computed_here(i)) ++member.request->report->tokens_computed;
  }
}

PrivateTokens::PrivateTokens(TokenTree& tree, NodeId from, const TokenPaths::Tokens& tokens)
    : tree_(tree), last_(from) {
  for (const int32_t token : tokens) {
    last_ = tree_.AddPrivate(last_, token);
    tree_.Pin(last_);
    nodes_.push_back(last_);
  }
}

PrivateTokens::~PrivateTokens() {
  for (size_t i = nodes_.size(); i-- > 0;) tree_.Unpin(nodes_[i]);
  if (!nodes_.empty()) tree_.RemoveSubtree(nodes_.front());
}

}  // namespace lmfusion
