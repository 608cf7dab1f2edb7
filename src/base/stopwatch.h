#pragma once

#include <chrono>

namespace lmfusion {

// Seconds of wall time since it was made or last asked.
class Stopwatch {
 public:
  double Lap() {
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - start_).count();
    start_ = now;
    return seconds;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

}  // namespace lmfusion
