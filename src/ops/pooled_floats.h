#pragma once

#include <ATen/core/Tensor.h>

namespace lmfusion {

// A float32 tensor on the CPU of any content, whose memory is Scratch: what operators of a forward
// pass hand on has sizes that come again, and the C library takes microseconds for large ones.
// Throws std::bad_alloc.
at::Tensor EmptyFloats(at::IntArrayRef sizes);

}  // namespace lmfusion
