#pragma once

#include <cstddef>
#include <cstdint>

namespace lmfusion {

// zlib's CRC-32 of `size` bytes, or of those that `before` is the checksum of with these after
// them.
uint32_t Checksum(const void* bytes, size_t size, uint32_t before = 0);

}  // namespace lmfusion
