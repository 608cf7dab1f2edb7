#include "tree/token_tree.h"

#include <cmath>

namespace lmfusion {
namespace {

// Of a node's entry of the hash map (bucket, pair, next pointer), and of its number (NodeNumbers).
constexpr int64_t kMapEntryBytes = 40;
constexpr int64_t kNumberBytes = 8;

}  // namespace

TokenTree::TokenTree(int64_t slots, int64_t slot_bytes, int64_t bytes)
    : slots_(slots), slot_bytes_(slot_bytes), byte_limit_(bytes) {}

NodeId TokenTree::NewRoot() { return Add(kNoNode, -1); }

NodeId TokenTree::Find(NodeId parent, int32_t token) const {
  const auto found = children_.find(Key(parent, token));
  return found == children_.end() ? kNoNode : found->second;
}

NodeId TokenTree::FindOrAdd(NodeId parent, int32_t token) {
  const auto [found, is_new] = children_.emplace(Key(parent, token), kNoNode);
  if (!is_new) return found->second;
  try {
    return found->second = Add(parent, token);
  } catch (...) {
    children_.erase(found);
    throw;
  }
}

NodeId TokenTree::Add(NodeId parent, int32_t token) {
  NodeId id = free_node_;
  if (id == kNoNode) {
    id = static_cast<NodeId>(nodes_.size());
    nodes_.emplace_back();
  } else {
    free_node_ = nodes_[id].next_sibling;
    nodes_[id].next_sibling = kNoNode;
  }
  Node& node = nodes_[id];
  node.parent = parent;
  node.token = token;
  if (parent != kNoNode) {
    node.position = nodes_[parent].position + 1;
    node.next_sibling = nodes_[parent].first_child;
    if (node.next_sibling != kNoNode) nodes_[node.next_sibling].previous_sibling = id;
    nodes_[parent].first_child = id;
  }
  ++node_count_;
  return id;
}

void TokenTree::Remove(NodeId id) noexcept {
  Node& node = nodes_[id];
  if (node.slot != kNoSlot) FreeSlot(id);
  if (node.in_list) RemoveFromList(id);
  if (node.parent != kNoNode) children_.erase(Key(node.parent, node.token));
  if (node.previous_sibling != kNoNode) {
    nodes_[node.previous_sibling].next_sibling = node.next_sibling;
  } else if (node.parent != kNoNode) {
    nodes_[node.parent].first_child = node.next_sibling;
  }
  if (node.next_sibling != kNoNode) {
    nodes_[node.next_sibling].previous_sibling = node.previous_sibling;
  }
  node = Node();
  node.next_sibling = free_node_;
  free_node_ = id;
  --node_count_;
}

void TokenTree::RemoveIfEmpty(NodeId id) noexcept {
  const Node& node = nodes_[id];
  if (node.pins == 0 && node.slot == kNoSlot && node.first_child == kNoNode &&
      std::isnan(node.log_prob)) {
    Remove(id);
  }
}

void TokenTree::RemoveSubtree(NodeId top) noexcept {
  // Depth first without recursion: paths are as long as texts.
  NodeId id = top;
  while (true) {
    while (nodes_[id].first_child != kNoNode) id = nodes_[id].first_child;
    const NodeId parent = nodes_[id].parent;
    Remove(id);
    if (id == top) return;
    id = parent;
  }
}

void TokenTree::RemoveChildren(NodeId id) noexcept {
  while (nodes_[id].first_child != kNoNode) RemoveSubtree(nodes_[id].first_child);
}

void TokenTree::Clear() noexcept {
  for (NodeId id = 0; id < node_end(); ++id) {
    if (nodes_[id].parent == kNoNode) RemoveChildren(id);  // a root, or a node that is not in use
  }
}

void TokenTree::Pin(NodeId id) noexcept {
  if (nodes_[id].pins++ == 0 && nodes_[id].in_list) RemoveFromList(id);
}

void TokenTree::Unpin(NodeId id) noexcept {
  if (--nodes_[id].pins == 0) AddNewest(id);
}

bool TokenTree::AcquireSlot(NodeId id) {
  while (bytes() + slot_bytes_ > byte_limit_ && EvictOne()) {
  }
  while (free_slots_.empty() && next_slot_ == slots_) {
    if (!EvictOne()) return false;
  }
  if (free_slots_.empty()) {
    // So that every slot can be given back.
    const auto used = static_cast<size_t>(next_slot_) + 1;
    if (free_slots_.capacity() < used) free_slots_.reserve(2 * used);
    nodes_[id].slot = next_slot_++;
  } else {
    nodes_[id].slot = free_slots_.back();
    free_slots_.pop_back();
  }
  ++slots_in_use_;
  return true;
}

void TokenTree::Trim() noexcept {
  while (bytes() > byte_limit_ && EvictOne()) {
  }
}

void TokenTree::MarkComputed(NodeId id) noexcept { nodes_[id].computed = true; }

void TokenTree::FreeSlot(NodeId id) noexcept {
  Node& node = nodes_[id];
  node.computed = false;
  free_slots_.push_back(node.slot);
  node.slot = kNoSlot;
  --slots_in_use_;
}

bool TokenTree::EvictOne() noexcept {
  const NodeId id = oldest_;
  if (id == kNoNode) return false;
  // Nodes leave the list when pinned and come back children first, so a computed child would be
  // older, and a pinned one would have its ancestors pinned as well. Of its children, then, no more
  // is known than a log-probability.
  RemoveChildren(id);
  if (nodes_[id].computed) {
    FreeSlot(id);
    ++evictions_;
    RemoveIfEmpty(id);
  } else {
    Remove(id);
  }
  return true;
}

void TokenTree::AddNewest(NodeId id) noexcept {
  Node& node = nodes_[id];
  node.in_list = true;
  node.older = newest_;
  node.newer = kNoNode;
  if (newest_ != kNoNode) nodes_[newest_].newer = id;
  newest_ = id;
  if (oldest_ == kNoNode) oldest_ = id;
}

void TokenTree::RemoveFromList(NodeId id) noexcept {
  Node& node = nodes_[id];
  (node.older == kNoNode ? oldest_ : nodes_[node.older].newer) = node.newer;
  (node.newer == kNoNode ? newest_ : nodes_[node.newer].older) = node.older;
  node.in_list = false;
}

int64_t TokenTree::node_bytes() {
  return static_cast<int64_t>(sizeof(Node)) + kMapEntryBytes + kNumberBytes;
}

int64_t TokenTree::bytes() const {
  return slots_in_use_ * slot_bytes_ + node_count_ * node_bytes();
}

}  // namespace lmfusion
