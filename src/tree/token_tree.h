#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <unordered_map>
#include <vector>

namespace lmfusion {

using NodeId = int32_t;
using SlotId = int32_t;
constexpr NodeId kNoNode = -1;
constexpr SlotId kNoSlot = -1;

// Every text is a path in this tree. A node is one token in one exact left context, so what the
// model computes for it (keys and values, final hidden state) depends on the path alone and is
// right for ever, whoever asks. A node that the model has computed owns a slot of the model's
// pool; a node without one only remembers its log-probability.
//
// Memory: at most `slots` slots and `bytes` bytes. When room is needed, the least recently used
// nodes without computed children lose their slots, and go where nothing else is known of them.
// Pinned nodes are never touched. Not thread safe.
//
// Only what makes a node or a slot takes memory, and where it throws std::bad_alloc the tree is as
// it was. All else takes none: what gives back can always be done.
class TokenTree {
 public:
  // slot_bytes: what the model keeps for one slot. bytes: slots and nodes together.
  TokenTree(int64_t slots, int64_t slot_bytes, int64_t bytes);

  // An empty path to start from. The root holds no token, and nothing but RemoveSubtree removes it.
  NodeId NewRoot();

  // The node of `token` after `parent`, or kNoNode.
  NodeId Find(NodeId parent, int32_t token) const;
  // The same, made where there is none.
  NodeId FindOrAdd(NodeId parent, int32_t token);
  // Every node is below this.
  NodeId node_end() const { return static_cast<NodeId>(nodes_.size()); }

  NodeId parent(NodeId node) const { return nodes_[node].parent; }
  int32_t token(NodeId node) const { return nodes_[node].token; }
  // Tokens before this one on its path; -1 for a root.
  int32_t position(NodeId node) const { return nodes_[node].position; }
  bool is_root(NodeId node) const { return nodes_[node].parent == kNoNode; }
  bool has_children(NodeId node) const { return nodes_[node].first_child != kNoNode; }
  // kNoNode where there is none.
  NodeId first_child(NodeId node) const { return nodes_[node].first_child; }
  NodeId next_sibling(NodeId node) const { return nodes_[node].next_sibling; }
  SlotId slot(NodeId node) const { return nodes_[node].slot; }
  // Whether the slot holds what the model computed.
  bool computed(NodeId node) const { return nodes_[node].computed; }
  // log p(token | path before it), in nats; NaN while unknown.
  float log_prob(NodeId node) const { return nodes_[node].log_prob; }
  void set_log_prob(NodeId node, float value) { nodes_[node].log_prob = value; }
  // log-sum-exp of the logits after this node, in nats; NaN while unknown.
  float normalizer(NodeId node) const { return nodes_[node].normalizer; }
  void set_normalizer(NodeId node, float value) { nodes_[node].normalizer = value; }
  // log p(a word ends after this node), in nats; NaN while unknown.
  float word_end(NodeId node) const { return nodes_[node].word_end; }
  void set_word_end(NodeId node, float value) { nodes_[node].word_end = value; }

  // A pinned node stays, with its slot. Pin ancestors before their descendants, unpin in the
  // opposite order: then the least recently used node never has a more recent ancestor.
  void Pin(NodeId node) noexcept;
  void Unpin(NodeId node) noexcept;

  // Gives a pinned node that is no root a slot, taking one from the least recently used node where
  // none is free. False where everything is pinned.
  bool AcquireSlot(NodeId node);
  // Publishes the slot: from now on the node counts as computed.
  void MarkComputed(NodeId node) noexcept;
  // Makes room until no more than `bytes` are held, as far as nodes are not pinned.
  void Trim() noexcept;
  // Takes back a slot that was not published.
  void ReleaseSlot(NodeId node) noexcept { FreeSlot(node); }

  // Removes an unpinned node that has neither slot nor log-probability nor children; otherwise
  // does nothing.
  void RemoveIfEmpty(NodeId node) noexcept;
  // Removes a node with all below it, or all below it alone. None may be pinned.
  void RemoveSubtree(NodeId node) noexcept;
  void RemoveChildren(NodeId node) noexcept;
  // Removes everything but the roots. Nothing may be pinned.
  void Clear() noexcept;

  // Bytes of a node without its slot.
  static int64_t node_bytes();

  int64_t slots_in_use() const { return slots_in_use_; }
  int64_t node_count() const { return node_count_; }
  int64_t evictions() const { return evictions_; }
  // Bytes held: slots in use and nodes.
  int64_t bytes() const;

 private:
  struct Node {
    NodeId parent = kNoNode;
    int32_t token = -1;
    int32_t position = -1;
    SlotId slot = kNoSlot;
    NodeId first_child = kNoNode, next_sibling = kNoNode, previous_sibling = kNoNode;
    NodeId older = kNoNode, newer = kNoNode;  // the list of unpinned nodes by last use
    int32_t pins = 0;
    float log_prob = std::numeric_limits<float>::quiet_NaN();
    float normalizer = std::numeric_limits<float>::quiet_NaN();
    float word_end = std::numeric_limits<float>::quiet_NaN();
    bool computed = false;
    bool in_list = false;
  };

  static uint64_t Key(NodeId parent, int32_t token) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(parent)) << 32) |
           static_cast<uint32_t>(token);
  }
  NodeId Add(NodeId parent, int32_t token);
  void Remove(NodeId node) noexcept;
  void FreeSlot(NodeId node) noexcept;
  bool EvictOne() noexcept;
  void AddNewest(NodeId node) noexcept;
  void RemoveFromList(NodeId node) noexcept;

  const int64_t slots_, slot_bytes_, byte_limit_;
  std::vector<Node> nodes_;
  NodeId free_node_ = kNoNode;      // the first of those that were removed, chained as siblings
  std::vector<SlotId> free_slots_;  // has room for all slots that were ever used
  std::unordered_map<uint64_t, NodeId> children_;
  NodeId oldest_ = kNoNode, newest_ = kNoNode;
  SlotId next_slot_ = 0;  // slots from here on were never used
  int64_t slots_in_use_ = 0, node_count_ = 0, evictions_ = 0;
};

}  // namespace lmfusion
