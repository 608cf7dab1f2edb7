#include "lmfusion/stats.h"

#include <sstream>

namespace lmfusion {

std::string Stats::ToString() const {
  std::ostringstream out;
  out << calls << " calls, " << candidates << " candidates, " << tokens_requested
      << " tokens requested, " << tokens_computed << " computed in " << forwards << " forwards, "
      << tokens_reused << " reused, " << evictions << " evictions, " << cached_tokens
      << " tokens cached in " << cache_bytes << " of " << cache_bytes_limit
      << " bytes; seconds: " << total_seconds << " = text " << text_seconds << " + tree "
      << tree_seconds << " + forward " << forward_seconds << " + output " << output_seconds
      << "; p50 " << latency_p50 << ", p95 " << latency_p95 << ", p99 " << latency_p99 << " a call";
  return out.str();
}

}  // namespace lmfusion
