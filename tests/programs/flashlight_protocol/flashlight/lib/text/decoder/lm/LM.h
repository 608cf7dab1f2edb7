#pragma once

// The interface that flashlight-text's decoders ask of a language model, as far as
// include/lmfusion/flashlight_lm.h uses it: enough to compile and run it where the package is not
// installed. With -DFLASHLIGHT_TEXT_INCLUDE=DIR the test uses the real header.

#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fl {
namespace lib {
namespace text {

struct LMState {
  std::unordered_map<int, std::shared_ptr<LMState>> children;

  template <typename T>
  std::shared_ptr<T> child(int index) {
    std::shared_ptr<LMState>& found = children[index];
    if (found == nullptr) found = std::make_shared<T>();
    return std::static_pointer_cast<T>(found);
  }
};
using LMStatePtr = std::shared_ptr<LMState>;

class LM {
 public:
  virtual ~LM() = default;
  virtual LMStatePtr start(bool startWithNothing) = 0;
  virtual std::pair<LMStatePtr, float> score(const LMStatePtr& state, const int usrTokenIdx) = 0;
  virtual std::pair<LMStatePtr, float> finish(const LMStatePtr& state) = 0;
  virtual void updateCache(std::vector<LMStatePtr>) {}
};

}  // namespace text
}  // namespace lib
}  // namespace fl
