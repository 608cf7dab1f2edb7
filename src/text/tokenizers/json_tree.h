#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace lmfusion {

// A JSON document of bounded nesting that comes and goes without asking for memory as it goes:
// nlohmann's own destructor and parser allocate where a value has parts, and end the process where
// there is no memory left. Hand out references only: copies have that destructor again.
class JsonTree {
 public:
  // Throws TokenizerError where containers are nested more deeply, else what nlohmann's parse does.
  JsonTree(std::string_view json, size_t max_nesting);
  ~JsonTree();
  JsonTree(const JsonTree&) = delete;
  JsonTree& operator=(const JsonTree&) = delete;

  const nlohmann::json& root() const { return root_; }

 private:
  nlohmann::json root_;
};

}  // namespace lmfusion
