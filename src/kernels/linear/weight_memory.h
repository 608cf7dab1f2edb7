#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lmfusion {

// Memory for weights that live long and are read from end to end: uint8 [bytes], 64-byte aligned,
// of zeros, in large pages where the system has them. Small ones share a piece of memory, which
// goes back when the last of them does.
at::Tensor WeightMemory(int64_t bytes);

}  // namespace lmfusion
