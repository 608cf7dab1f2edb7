#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lmfusion {

// What a JSON document may be at most, where it comes from anywhere: its values take dozens of
// times their bytes in memory, and what writes and ends them calls itself a level.
struct JsonLimits {
  int nesting;
  int64_t values;
  size_t text;  // bytes of a text or a name
};

// What of `json` is beyond the limits, for messages; null where nothing is, also where it is no
// JSON. Reads it once and keeps nothing of it. (nlohmann's parser with a callback would tell too,
// but looks through all elements of an array whenever an object in it ends.)
const char* BeyondLimits(std::string_view json, const JsonLimits& limits);

}  // namespace lmfusion
