#include "scorer/shapes.h"

#include <cmath>
#include <stdexcept>

namespace lmfusion {

void CheckShape(const std::string& name, const std::vector<std::vector<double>>& values,
                const Shape& shape) {
  const size_t rows = shape.sizes.size();
  if (values.size() != rows) {
    throw std::invalid_argument(name + " has " + std::to_string(values.size()) + " rows for " +
                                std::to_string(rows) + " " + shape.rows + "; one number a " +
                                shape.item + ", [" + shape.rows + "][" + shape.item +
                                "s], expected");
  }
  for (size_t i = 0; i < rows; ++i) {
    if (values[i].size() == shape.sizes[i]) continue;
    throw std::invalid_argument(name + "[" + std::to_string(i) + "] has " +
                                std::to_string(values[i].size()) + " numbers for " +
                                std::to_string(shape.sizes[i]) + " " + shape.item + "s; one a " +
                                shape.item + " expected");
  }
}

void CheckDeadline(double deadline) {
  if (std::isnan(deadline)) {
    throw std::invalid_argument("deadline is NaN; seconds expected, 0 or less to score nothing");
  }
}

}  // namespace lmfusion
