#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lmfusion {

// A float32 tensor on the CPU of any content, whose memory is Scratch: what operators of a forward
// pass hand on has sizes that come again, and the C library takes microseconds for large ones.
// Throws std::bad_alloc.
at::Tensor EmptyFloats(at::IntArrayRef sizes);

// [..., width], with as many rows as x [..., n] has.
at::Tensor EmptyRows(const at::Tensor& x, int64_t width);

}  // namespace lmfusion
