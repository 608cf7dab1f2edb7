#pragma once

#include <cstdint>
#include <exception>
#include <string>

#include "base/token_paths.h"
#include "cache/path_scorer.h"

namespace lmfusion {

// A call of PathScorer::Score or Prime, in the hands of whoever does its work.
struct Call {
  const TokenPaths* paths = nullptr;
  const std::string* cache_namespace = nullptr;
  PathScores* scores = nullptr;  // to be filled
  CallReport* report = nullptr;  // to be filled; may be null
  // A path with nothing to score is computed, to its end and with the log-normaliser after it.
  bool prime = false;

  // Of the queue (call_queue.h).
  std::exception_ptr error;
  bool done = false;
  Call* next = nullptr;
};

}  // namespace lmfusion
