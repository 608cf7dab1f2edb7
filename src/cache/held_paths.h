#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/token_paths.h"

namespace lmfusion {

// Beginnings of texts that calls in progress will need again, a prompt say. Thread safe.
class HeldPaths {
 public:
  struct Held {
    std::shared_ptr<const TokenPaths::Tokens> tokens;
    std::string cache_namespace;
  };

  // Held while the result lives.
  std::shared_ptr<const Held> Hold(Held path) {
    auto held = std::make_shared<const Held>(std::move(path));
    const std::lock_guard<std::mutex> lock(mutex_);
    held_.erase(
        std::remove_if(held_.begin(), held_.end(), [](const auto& each) { return each.expired(); }),
        held_.end());
    held_.push_back(held);
    return held;
  }

  // visit(held) of each, oldest first.
  template <typename Visit>
  void ForEach(Visit visit) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& each : held_) {
      if (const std::shared_ptr<const Held> held = each.lock()) visit(*held);
    }
  }

 private:
  mutable std::mutex mutex_;  // held for moments only
  std::vector<std::weak_ptr<const Held>> held_;
};

}  // namespace lmfusion
