#pragma once

#include <string>
#include <vector>

namespace lmfusion {

// How many rows a call is asked for and how many items each has, with the names of both.
struct Shape {
  std::string rows, item;  // "contexts", "candidate"
  std::vector<size_t> sizes;
};

// Throws std::invalid_argument unless `values`, the argument of this name, has one number an item.
void CheckShape(const std::string& name, const std::vector<std::vector<double>>& values,
                const Shape& shape);

// Throws std::invalid_argument for NaN.
void CheckDeadline(double deadline);

}  // namespace lmfusion
