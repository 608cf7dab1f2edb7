#include "base/checksum.h"

#include <zlib.h>

namespace lmfusion {

uint32_t Checksum(const void* bytes, size_t size, uint32_t before) {
  if (size == 0) return before;  // zlib takes a null pointer for a new start
  return static_cast<uint32_t>(crc32_z(before, static_cast<const Bytef*>(bytes), size));
}

}  // namespace lmfusion
