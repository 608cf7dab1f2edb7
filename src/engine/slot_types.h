#pragma once

#include <c10/core/ScalarType.h>

#include <stdexcept>
#include <string>

namespace lmfusion {

// The types of numbers in slots, by the names of the option kv_dtype.
inline at::ScalarType SlotTypeByName(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "float16") return at::kHalf;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float8") return at::kFloat8_e4m3fn;
  throw std::invalid_argument("kv_dtype = \"" + name +
                              "\"; \"auto\", \"float32\", \"bfloat16\", "
                              "\"float16\" or \"float8\" expected");
}

inline std::string NameOf(at::ScalarType type) {
  for (const char* name : {"float32", "float16", "bfloat16"}) {
    if (SlotTypeByName(name) == type) return name;
  }
  return "float8";
}

}  // namespace lmfusion
