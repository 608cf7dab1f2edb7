#pragma once

#include <ATen/record_function.h>

#include <cstdint>
#include <vector>

#include "bundle/description.h"

namespace lmfusion {

// What the attention operators of a graph are called with, on this thread, while one lives, one at
// a time: what a model file says of its attention is held against it.
class AttentionCalls {
 public:
  AttentionCalls();
  ~AttentionCalls();
  AttentionCalls(const AttentionCalls&) = delete;
  AttentionCalls& operator=(const AttentionCalls&) = delete;

  // Throws ModelFileError where a layer does not attend, or attends over another window or by other
  // heads than the description says.
  void Check(const ModelDescription& description) const;

 private:
  struct Call {
    int64_t layer, window, query_heads;
  };
  std::vector<Call> calls_;
  at::CallbackHandle callback_;
};

}  // namespace lmfusion
