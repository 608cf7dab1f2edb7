#pragma once

#include <cstdint>
#include <memory>

namespace lmfusion {

// Memory for weights that live long and are read from end to end: `bytes` zeros, 64-byte aligned,
// in large pages where the system has them. Small ones share a mapping, which goes back when the
// last of them does. Throws std::bad_alloc.
std::shared_ptr<uint8_t> WeightMemory(int64_t bytes);

}  // namespace lmfusion
