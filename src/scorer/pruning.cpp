#include "scorer/pruning.h"

#include <algorithm>
#include <limits>

namespace lmfusion {
namespace {

using Path = TokenPaths::Path;

constexpr double kNone = -std::numeric_limits<double>::infinity();

// [paths] of the threshold of each; none where the candidate has more than this path.
std::vector<double> PathThresholds(const TokenPaths& paths, const std::vector<double>& thresholds) {
  std::vector<int32_t> paths_of(paths.candidates, 0);
  for (const Path& path : paths.paths) ++paths_of[paths.candidate_of[path.alternative]];
  std::vector<double> path_thresholds;
  for (const Path& path : paths.paths) {
    const int32_t candidate = paths.candidate_of[path.alternative];
    const bool alone = paths_of[candidate] == 1 && path.sign > 0;
    path_thresholds.push_back(alone ? thresholds[candidate] : kNone);
  }
  return path_thresholds;
}

}  // namespace

PathScores ScoreWithPruning(PathScorer& scorer, const TokenPaths& paths,
                            const std::vector<double>& thresholds,
                            const std::string& cache_namespace) {
  const std::vector<double> path_thresholds = PathThresholds(paths, thresholds);
  PathScores scores(paths);
  std::vector<double> sums(paths.paths.size(), 0.0);
  std::vector<size_t> open;  // paths that are neither finished nor given up
  for (size_t i = 0; i < paths.paths.size(); ++i) open.push_back(i);
  while (!open.empty()) {
    TokenPaths round;
    for (const size_t i : open) {
      const Path& path = paths.paths[i];
      const int32_t begin = path.scored_begin + static_cast<int32_t>(scores.log_probs[i].size());
      const int32_t size =
          path_thresholds[i] == kNone ? path.size() : std::min(path.size(), begin + 1);
      round.paths.push_back(path.First(size, begin));
      round.paths.back().alternative = round.candidates;
      round.candidate_of.push_back(round.candidates++);
    }
    const PathScores found = scorer.Score(round, cache_namespace);
    std::vector<size_t> still_open;
    for (size_t k = 0; k < open.size(); ++k) {
      const size_t i = open[k];
      std::vector<float>& log_probs = scores.log_probs[i];
      log_probs.insert(log_probs.end(), found.log_probs[k].begin(), found.log_probs[k].end());
      for (const float log_prob : found.log_probs[k]) sums[i] += log_prob;
      scores.word_end[i] = found.word_end[k];
      if (sums[i] < path_thresholds[i]) {
        log_probs = {-std::numeric_limits<float>::infinity()};
      } else if (round.paths[k].size() < paths.paths[i].size()) {
        still_open.push_back(i);
      }
    }
    open = std::move(still_open);
  }
  return scores;
}

}  // namespace lmfusion
