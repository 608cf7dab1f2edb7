#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace lmfusion {

// A JSON document that comes and goes without asking for memory as it goes:
// nlohmann's own destructor and parser allocate where a value has parts, and end the process where
// there is no memory left. Hand out references only: copies have that destructor again.
class JsonTree {
 public:
  // Throws what nlohmann's parse does. How much there may be of it is BeyondLimits' matter
  // (base/json_limits.h).
  explicit JsonTree(std::string_view json);
  ~JsonTree();
  JsonTree(const JsonTree&) = delete;
  JsonTree& operator=(const JsonTree&) = delete;

  const nlohmann::json& root() const { return root_; }

 private:
  nlohmann::json root_;
};

}  // namespace lmfusion
