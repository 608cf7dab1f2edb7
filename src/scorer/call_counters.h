#pragma once

#include <mutex>

#include "lmfusion/stats.h"
#include "scorer/latencies.h"

namespace lmfusion {

// What the calls of a scorer add up to, and how long the last ones took. Thread safe.
class CallCounters {
 public:
  void Add(const Stats& call) {
    const std::lock_guard<std::mutex> lock(mutex_);
    total_ += call;
    if (call.calls > 0) latencies_.Add(call.total_seconds);
  }

  // Since the scorer was made, without latencies.
  Stats Total() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return total_;
  }

  void FillLatencies(Stats* stats) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats->latency_p50 = latencies_.Quantile(0.5);
    stats->latency_p95 = latencies_.Quantile(0.95);
    stats->latency_p99 = latencies_.Quantile(0.99);
  }

  void ForgetLatencies() {
    const std::lock_guard<std::mutex> lock(mutex_);
    latencies_ = Latencies();
  }

 private:
  mutable std::mutex mutex_;
  Stats total_;
  Latencies latencies_;
};

}  // namespace lmfusion
