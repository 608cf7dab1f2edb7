#include "scorer/selfcheck.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lmfusion {
namespace {

double Difference(float a, float b) {
  if (a == b) return 0;  // both -infinity, too
  const double difference = std::abs(double{a} - b);
  return std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
}

}  // namespace

double LargestDifference(const PathScores& one, const PathScores& other) {
  double largest = 0;
  for (size_t i = 0; i < one.log_probs.size(); ++i) {
    for (size_t k = 0; k < one.log_probs[i].size(); ++k) {
      largest = std::max(largest, Difference(one.log_probs[i][k], other.log_probs[i][k]));
    }
    largest = std::max(largest, Difference(one.word_end[i], other.word_end[i]));
  }
  return largest;
}

double SelfcheckTolerance(const ScorerOptions& options) {
  return options.compute == "float32" ? 1e-3 : 0.1;
}

}  // namespace lmfusion
