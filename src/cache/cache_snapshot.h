#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/token_paths.h"
#include "tree/causal_lm.h"
#include "tree/node_numbers.h"
#include "tree/token_tree.h"

namespace lmfusion {

// Note [Cache snapshot]
// A file of nodes of a token tree with what their slots hold, for scorers of the same model.
// Numbers are as x86-64 keeps them (little-endian, IEEE 754). In order:
//
//     char    magic[8]        "lmfcache"
//     uint32  format          2
//     uint32  identity_bytes
//     int64   nodes, slots, slot_bytes
//     uint64  word_beginnings (SnapshotOwner)
//     char    identity[identity_bytes]   what must be equal in the scorer that reads it
//     (SnapshotOwner) Node    node[nodes]                parents before children char
//     slot[slots][slot_bytes]    of the nodes that have one, in their order uint32  checksum zlib's
//     CRC-32 of all before it
//
// where Node is int32 parent (its index; -1: the root), int32 token, float32 log_prob, normalizer,
// word_end (nats; NaN: not known), int32 has_slot. A file takes its place whole (AtomicFile), and
// is checked as a whole before any of it is used.

// Who may use a snapshot: the model, its types, and which tokens begin a word (0: not known; ends
// of words are read by scorers of the same value only).
struct SnapshotOwner {
  std::string identity;  // lines "name: value", of the model's description and its slots
  uint64_t word_beginnings = 0;
};
SnapshotOwner OwnerOf(const CausalLM& model, uint64_t word_beginnings);

// All nodes below `root`, or those of them that are on the paths; parents before children, each
// once.
std::vector<NodeId> NodesBelow(const TokenTree& tree, NodeId root);
std::vector<NodeId> NodesOf(const TokenPaths& paths, const TokenTree& tree, NodeId root);

// Writes `nodes`: whole paths from one root, parents before children. Returns how many have a slot.
// Throws CacheFileError where the file cannot be written; then it is as it was.
int64_t WriteSnapshot(const std::string& file, const SnapshotOwner& owner, const TokenTree& tree,
                      const std::vector<NodeId>& nodes, CausalLM& model);

// Adds the file's nodes below `root`; what is known already stays, other paths may lose their
// slots, oldest first. Returns the number of slots filled. Before anything is changed it throws
// CacheFileError, and CacheBudgetError where `bytes`, the budget of slots and nodes, does not hold
// the whole file. numbers: nobody else's meanwhile.
int64_t ReadSnapshot(const std::string& file, const SnapshotOwner& owner, TokenTree& tree,
                     NodeId root, NodeNumbers& numbers, CausalLM& model, int64_t bytes);

}  // namespace lmfusion
