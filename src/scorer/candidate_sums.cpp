#include "scorer/candidate_sums.h"

#include "base/log_sum_exp.h"

namespace lmfusion {

std::vector<double> AlternativeSums(const TokenPaths& paths, const PathScores& scores) {
  std::vector<double> sums(paths.candidate_of.size(), 0.0);
  for (size_t i = 0; i < paths.paths.size(); ++i) {
    double sum = scores.word_end[i];
    for (const float log_prob : scores.log_probs[i]) sum += log_prob;
    sums[paths.paths[i].alternative] += paths.paths[i].sign * sum;
  }
  return sums;
}

std::vector<double> CandidateSums(const TokenPaths& paths, const PathScores& scores) {
  const std::vector<double> sums = AlternativeSums(paths, scores);
  std::vector<double> candidates(paths.candidates, 0.0);
  for (size_t begin = 0; begin < sums.size();) {
    size_t end = begin + 1;
    const int32_t candidate = paths.candidate_of[begin];
    while (end < sums.size() && paths.candidate_of[end] == candidate) ++end;
    candidates[candidate] =
        end == begin + 1 ? sums[begin] : LogSumExp({sums.begin() + begin, sums.begin() + end});
    begin = end;
  }
  return candidates;
}

}  // namespace lmfusion
