#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace lmfusion {

// How long the last calls took, in seconds. Not thread safe.
class Latencies {
 public:
  void Add(double seconds) {
    if (seconds_.size() < kKept) {
      seconds_.push_back(seconds);
    } else {
      seconds_[next_] = seconds;
      next_ = (next_ + 1) % kKept;
    }
  }

  // The least number of seconds within which `fraction` of the calls were done; 0 without calls.
  double Quantile(double fraction) const {
    if (seconds_.empty()) return 0;
    std::vector<double> sorted = seconds_;
    const auto rank =
        static_cast<size_t>(std::lround(fraction * static_cast<double>(sorted.size() - 1)));
    std::nth_element(sorted.begin(), sorted.begin() + rank, sorted.end());
    return sorted[rank];
  }

 private:
  static constexpr size_t kKept = 4096;
  std::vector<double> seconds_;
  size_t next_ = 0;
};

}  // namespace lmfusion
