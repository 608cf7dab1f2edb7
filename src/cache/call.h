#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <string>

#include "base/token_paths.h"
#include "cache/path_scorer.h"
#include "lmfusion/call_watch.h"

namespace lmfusion {

// A call of PathScorer::Score or Prime, in the hands of whoever does its work. Made by the thread
// that waits for it.
struct Call {
  Call(const TokenPaths& to_score, const std::string& in_namespace, PathScores* to_fill,
       CallReport* report_to_fill = nullptr)
      : paths(&to_score), cache_namespace(&in_namespace), scores(to_fill), report(report_to_fill) {}

  const TokenPaths* const paths;
  const std::string* const cache_namespace;
  PathScores* const scores;
  CallReport* const report;  // may be null
  // A path with nothing to score is computed, to its end and with the log-normaliser after it.
  bool prime = false;

  // Of whoever works: what went wrong, and whether scores or error are final.
  std::exception_ptr error;
  bool settled = false;
  std::atomic<int64_t> paths_done{0};

  // Of the caller's thread alone: tells its watch how far the call is. False where the watch
  // throws: then the call ends early, by ended_by.
  bool Tell() noexcept {
    try {
      watch->Report(paths_done, static_cast<int64_t>(paths->paths.size()));
      return true;
    } catch (...) {
      ended_by = std::current_exception();
      return false;
    }
  }
  CallWatch* const watch = CallWatch::Current();  // may be null
  std::exception_ptr ended_by;
  std::atomic<bool> withdrawn{false};  // its caller waits for nothing more than to be let go

  // Of the queue (call_queue.h).
  bool done = false;
  Call* next = nullptr;
};

}  // namespace lmfusion
