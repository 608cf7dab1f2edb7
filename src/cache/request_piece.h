#pragma once

#include <cstdint>
#include <exception>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "base/token_paths.h"
#include "cache/path_piece.h"
#include "cache/path_scorer.h"
#include "tree/token_tree.h"

namespace lmfusion {

// One call that is worked off.
struct Request {
  const TokenPaths* paths = nullptr;
  const std::string* cache_namespace = nullptr;
  PathScores* scores = nullptr;  // [paths], to be filled
  CallReport* report = nullptr;  // may be null
  // A path with nothing to score is computed, to its end and with what the model says after it.
  bool prime = false;
  std::exception_ptr error;
  bool done = false;
};

// The nodes of `tree` below `root` that are on the paths, as far as it has them: parents before
// children, each once. Overwrites the tree's marks.
std::vector<NodeId> NodesOf(const TokenPaths& paths, TokenTree& tree, NodeId root);

// Bytes of slots and nodes that a cache needs to hold the paths of a request that primes; with
// those of `held`, the tree that it has below `root`, for last tokens that need no slot and have
// one. held: may be null.
int64_t NeededBytes(const TokenPaths& paths, int64_t slot_bytes, const TokenTree* held = nullptr,
                    NodeId root = kNoNode);

// A piece that knows whose paths it holds.
class RequestPiece {
 public:
  RequestPiece(TokenTree& tree, CausalLM& model, int64_t max_batch_tokens)
      : tree_(tree), piece_(tree, model, max_batch_tokens) {}

  // A path from `root`, found or made; the prefix that paths share is walked once.
  void AddShared(NodeId root, Request* request, size_t index);
  // A path that is in the tree.
  void Add(NodeId last, Request* request, size_t index);

  int64_t size() const { return static_cast<int64_t>(piece_.size()); }

  // Computes what is missing and fills the requests' scores. Throws as PathPiece::Compute.
  void Run(PathPiece::Counts* counts);

 private:
  struct Member {
    Request* request;
    size_t index;
    NodeId last;
    size_t begin, end;  // what it was the first to visit
  };

  NodeId Walk(NodeId node, const int32_t* tokens, int32_t count);
  void ReadScores(const Member& member) const;
  void ReadReused(const Member& member) const;
  void CountComputed(const Member& member) const;

  TokenTree& tree_;
  PathPiece piece_;
  std::vector<Member> members_;
  std::map<std::tuple<NodeId, const TokenPaths::Tokens*, int32_t>, NodeId> prefixes_;
};

// Nodes that nobody else finds, for the modes that do not share; they stay while this lives.
class PrivateTokens {
 public:
  PrivateTokens(TokenTree& tree, NodeId from, const TokenPaths::Tokens& tokens);
  ~PrivateTokens();
  PrivateTokens(const PrivateTokens&) = delete;
  PrivateTokens& operator=(const PrivateTokens&) = delete;
  NodeId last() const { return last_; }

 private:
  TokenTree& tree_;
  NodeId last_;
  std::vector<NodeId> nodes_;
};

}  // namespace lmfusion
