#include "cache/namespaces.h"

#include <utility>

namespace lmfusion {

NodeId Namespaces::Root(const std::string& name) {
  const auto [found, is_new] = roots_.emplace(name, kNoNode);
  if (!is_new) return found->second;
  try {
    found->second = tree_.NewRoot();
  } catch (...) {
    roots_.erase(found);
    throw;
  }
  ++added_;
  return found->second;
}

NodeId Namespaces::Find(const std::string& name) const {
  const auto found = roots_.find(name);
  return found == roots_.end() ? kNoNode : found->second;
}

void Namespaces::ForgetSome() noexcept {
  const int64_t steps = 2 * (1 + std::exchange(added_, 0));
  for (int64_t step = 0; step < steps && roots_.size() > most_; ++step) {
    if (hand_ == roots_.end()) hand_ = roots_.begin();
    ++looked_at_;
    if (tree_.has_children(hand_->second)) {
      ++hand_;
    } else {
      tree_.RemoveSubtree(hand_->second);
      hand_ = roots_.erase(hand_);
    }
  }
}

}  // namespace lmfusion
