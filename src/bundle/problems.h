#pragma once

#include <string>
#include <vector>

namespace lmfusion {

// What is wrong with a model file, in the order found: reading goes on where it can, so that one
// look tells all of it.
class Problems {
 public:
  // part: of the archive, "lmfusion.json"; field: in that part, may be empty.
  void Add(const std::string& part, const std::string& field, const std::string& what);

  bool empty() const { return lines_.empty(); }
  // "part: field: what", one a problem.
  const std::vector<std::string>& lines() const { return lines_; }

  // Throws ModelFileError with the first problem and the number of others, if there is any.
  void ThrowIfAny(const std::string& path) const;

 private:
  std::vector<std::string> lines_;
};

}  // namespace lmfusion
