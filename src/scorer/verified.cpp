#include "lmfusion/verified.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/stopwatch.h"

namespace lmfusion {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Indices, in the order of the list, of what `cheap` found less than `within` behind the n-th best;
// of what it did not finish, what may be.
std::vector<size_t> Near(const BestList& found, double within) {
  if (found.best.empty()) return {};
  const BestHypothesis& last = found.best.back();
  const double least = last.exact ? last.total - within : -kInfinity;
  std::vector<size_t> near;
  for (const BestHypothesis& one : found.best) near.push_back(one.index);
  for (const BestHypothesis& one : found.beaten) {
    if (one.total >= least) near.push_back(one.index);
  }
  std::sort(near.begin(), near.end());
  return near;
}

// Indices of a list in place of those of its near texts; the others have no bound.
void PutBack(const std::vector<size_t>& near, size_t size, BestList* found) {
  std::vector<bool> is_near(size, false);
  for (const size_t index : near) is_near[index] = true;
  for (auto* hypotheses : {&found->best, &found->beaten}) {
    for (BestHypothesis& one : *hypotheses) one.index = static_cast<int64_t>(near[one.index]);
  }
  for (size_t i = 0; i < size; ++i) {
    if (is_near[i]) continue;
    found->beaten.push_back({static_cast<int64_t>(i), kInfinity, kInfinity, false});
    found->gap = kInfinity;
  }
  std::sort(found->beaten.begin(), found->beaten.end(),
            [](const BestHypothesis& a, const BestHypothesis& b) { return a.index < b.index; });
}

}  // namespace

std::vector<BestList> VerifiedBest(LMFusionScorer& cheap, LMFusionScorer& exact, double margin,
                                   const std::vector<std::vector<std::string>>& lists,
                                   const std::vector<std::vector<double>>& base_scores,
                                   BestOptions options) {
  if (!(margin >= 0)) {
    throw std::invalid_argument("margin = " + std::to_string(margin) + "; 0 nats or more expected");
  }
  if (margin == kInfinity) return exact.best(lists, base_scores, options);
  const Stopwatch time;
  options.weight = options.weight.value_or(exact.options().weight);
  options.word_insertion_bonus =
      options.word_insertion_bonus.value_or(exact.options().word_insertion_bonus);
  BestOptions first = options;
  first.gap = 0;
  first.within = std::abs(*options.weight) * margin;
  const std::vector<BestList> guessed = cheap.best(lists, base_scores, first);

  std::vector<std::vector<size_t>> near;
  std::vector<std::vector<std::string>> near_lists(lists.size());
  std::vector<std::vector<double>> near_base(lists.size());
  for (size_t i = 0; i < lists.size(); ++i) {
    near.push_back(Near(guessed[i], first.within));
    for (const size_t index : near[i]) {
      near_lists[i].push_back(lists[i][index]);
      near_base[i].push_back(base_scores[i][index]);
    }
  }
  options.deadline -= time.Seconds();
  std::vector<BestList> found = exact.best(near_lists, near_base, options);
  for (size_t i = 0; i < lists.size(); ++i) PutBack(near[i], lists[i].size(), &found[i]);
  return found;
}

}  // namespace lmfusion
