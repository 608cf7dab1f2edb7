#include "search/best_search.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

namespace lmfusion {
namespace {

using Path = TokenPaths::Path;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// The end of a word as a child of the last token, in the search's own tree.
constexpr int32_t kWordEnd = -1;
// Nats that an unknown token may add at most: what rounding can make of probability 1.
constexpr float kMostAToken = 1e-4f;
// Nats of a token in the guess; it may have no probability at all.
constexpr float kLeastAToken = -30;
// Nats of a token before any is seen, which count as so many tokens; and what the tokens of texts
// that win take, as a share of the mean. By counts on lists of 60, where 0.7 computes a tenth less
// than 1 and 1.4 a fifth more.
constexpr double kGuess = -4, kGuessTokens = 16, kWinning = 0.7;
// A pass is filled up to this share of max_batch_tokens, if tokens are not too many nats below the
// guess, and beyond by those that are so many nats above it.
constexpr int64_t kFillShare = 16;
constexpr double kBelow = 8, kAbove = 4;

// a - b of two numbers that may be the same infinity.
double Above(double a, double b) { return a == b ? 0 : a - b; }

}  // namespace

BestSearch::BestSearch(PathScorer& scorer, HypothesisLists lists, BestSearchOptions options,
                       std::string cache_namespace)
    : scorer_(scorer),
      lists_(std::move(lists)),
      options_(options),
      cache_namespace_(std::move(cache_namespace)),
      tree_(0, 0, 0),
      hypotheses_(lists_.base.size()) {
  AddPaths();
  Settle();
}

void BestSearch::AddPaths() {
  const NodeId root = tree_.NewRoot();
  const std::vector<Path>& paths = lists_.paths.paths;
  std::vector<size_t> first_path(hypotheses_.size() + 1, 0);
  for (const Path& path : paths) ++first_path[lists_.paths.candidate_of[path.alternative] + 1];
  for (size_t h = 0; h < hypotheses_.size(); ++h) {
    first_path[h + 1] += first_path[h];
    hypotheses_[h].path_begin = first_path[h];
    hypotheses_[h].path_end = first_path[h + 1];
  }
  item_begin_.push_back(0);
  for (size_t list = 0; list < lists_.ends.size(); ++list) {
    List& added = all_.emplace_back();
    added.begin = list == 0 ? 0 : lists_.ends[list - 1];
    added.end = lists_.ends[list];
    const int64_t before = tree_.node_count();
    for (size_t p = first_path[added.begin]; p < first_path[added.end]; ++p) {
      NodeId node = root;
      int32_t position = 0;
      for (const int32_t token : paths[p].tokens()) {
        node = tree_.FindOrAdd(node, token);
        if (position++ >= paths[p].scored_begin) items_.push_back(node);
      }
      if (paths[p].ends_word) items_.push_back(tree_.FindOrAdd(node, kWordEnd));
      item_begin_.push_back(items_.size());
    }
    added.nodes = tree_.node_count() - before;
  }
  planned_.resize(tree_.node_end());
  asked_.resize(tree_.node_end());
}

// Lets further lists take part, as many as the cache holds.
void BestSearch::Admit() {
  TokenPaths asked;
  std::vector<size_t> path_of;
  for (; next_list_ < all_.size(); ++next_list_) {
    List& list = all_[next_list_];
    if (!open_lists_.empty() && nodes_open_ + list.nodes > scorer_.Capacity()) break;
    nodes_open_ += list.nodes;
    open_lists_.push_back(next_list_);
    for (size_t h = list.begin; h < list.end; ++h) {
      list.open.push_back(h);
      for (size_t p = hypotheses_[h].path_begin; p < hypotheses_[h].path_end; ++p) {
        asked.paths.push_back(lists_.paths.paths[p]);
        path_of.push_back(p);
      }
    }
  }
  if (!path_of.empty()) Learn(asked, path_of, scorer_.Known(asked, cache_namespace_));
}

// Until there is a list with something to ask, or none is left.
void BestSearch::Settle() {
  do {
    Admit();
    std::vector<size_t> still_open;
    for (const size_t i : open_lists_) {
      SettleList(&all_[i]);
      if (all_[i].open.empty()) {
        nodes_open_ -= all_[i].nodes;
      } else {
        still_open.push_back(i);
      }
    }
    open_lists_ = std::move(still_open);
  } while (open_lists_.empty() && next_list_ < all_.size());
}

void BestSearch::SettleList(List* list) {
  std::vector<size_t> open;
  for (const size_t h : list->open) {
    Bound(h);
    (hypotheses_[h].unknown == 0 ? list->finished : open).push_back(h);
  }
  std::sort(list->finished.begin(), list->finished.end(),
            [this](size_t a, size_t b) { return Better(a, b); });
  list->open.clear();
  for (const size_t h : open) {
    if (!IsBeaten(h, *list)) list->open.push_back(h);
  }
}

// In the order in which scores are summed, so that no rounding makes a bound too small.
void BestSearch::Bound(size_t h) {
  Hypothesis& hypothesis = hypotheses_[h];
  hypothesis.unknown = 0;
  hypothesis.bounded = true;
  hypothesis.log_prob = 0;
  const auto value = [&](NodeId node) {
    if (IsKnown(node)) return tree_.log_prob(node);
    ++hypothesis.unknown;
    return kMostAToken;
  };
  for (size_t p = hypothesis.path_begin; p < hypothesis.path_end; ++p) {
    const bool ends_word = lists_.paths.paths[p].ends_word;
    const int64_t unknown_before = hypothesis.unknown;
    const size_t tokens = ItemCount(p) - (ends_word ? 1 : 0);
    double sum = ends_word ? value(Item(p, tokens)) : 0.0f;
    for (size_t i = 0; i < tokens; ++i) sum += value(Item(p, i));
    const float sign = lists_.paths.paths[p].sign;
    hypothesis.log_prob += sign * sum;
    if (sign < 0 && hypothesis.unknown > unknown_before) hypothesis.bounded = false;
  }
  const bool no_bound = (options_.weight < 0 && hypothesis.unknown > 0) ||
                        (options_.weight != 0 && !hypothesis.bounded);
  if (!hypothesis.bounded) hypothesis.log_prob = kInfinity;
  hypothesis.total = no_bound ? kInfinity : Total(h, hypothesis.log_prob);
}

double BestSearch::Total(size_t h, double log_prob) const {
  if (lists_.base[h] == -kInfinity) return -kInfinity;
  const double scored = options_.weight == 0 ? 0 : options_.weight * log_prob;
  return lists_.base[h] + scored + lists_.bonus[h];
}

bool BestSearch::Better(size_t a, size_t b) const {
  const double total_a = hypotheses_[a].total, total_b = hypotheses_[b].total;
  return total_a > total_b || (total_a == total_b && a < b);
}

bool BestSearch::IsBeaten(size_t h, const List& list) const {
  const auto n = static_cast<size_t>(options_.n);
  if (list.finished.size() < n) return false;
  const size_t last = list.finished[n - 1];
  const double total = hypotheses_[h].total;
  if (options_.within > 0 && total > -kInfinity &&
      total >= hypotheses_[last].total - options_.within) {
    return false;
  }
  return Better(last, h) ||
         (options_.gap > 0 && hypotheses_[h].total <= hypotheses_[last].total + options_.gap);
}

bool BestSearch::IsKnown(NodeId node) const { return !std::isnan(tree_.log_prob(node)); }

int64_t BestSearch::settled() const {
  int64_t open = 0;
  for (size_t i = 0; i < all_.size(); ++i) {
    const bool admitted = i < next_list_;
    open += static_cast<int64_t>(admitted ? all_[i].open.size() : all_[i].end - all_[i].begin);
  }
  return static_cast<int64_t>(hypotheses_.size()) - open;
}

void BestSearch::Round() {
  TokenPaths asked;
  std::vector<size_t> path_of;  // of what is asked, among the paths of the lists
  AskSubtracted(&asked, &path_of);
  if (!path_of.empty()) {
    // The next pass has bounds.
  } else if (options_.shares_prefixes) {
    PlanPass();
    AskPlanned(&asked, &path_of);
  } else {
    AskWhole(&asked, &path_of);
  }
  Learn(asked, path_of, scorer_.Score(asked, cache_namespace_));
  Settle();
}

// Which nodes the pass computes; see Note [Best of a list].
void BestSearch::PlanPass() {
  std::fill(planned_.begin(), planned_.end(), false);
  const double a_token = std::abs(options_.weight) * GuessedLoss();
  std::priority_queue<Step> steps;
  const auto push = [&](double slack, size_t path_end, size_t path, size_t item) {
    if (NextUnknown(path_end, &path, &item)) steps.push({slack, path_end, path, item});
  };
  for (const size_t i : open_lists_) {
    const double to_beat = GuessedToBeat(all_[i], a_token);
    for (const size_t h : all_[i].open) {
      const Hypothesis& hypothesis = hypotheses_[h];
      push(Above(hypothesis.total, to_beat), hypothesis.path_end, hypothesis.path_begin, 0);
    }
  }
  const double above = options_.weight < 0 ? -kInfinity : options_.weight * kAbove;
  const double below = options_.weight < 0 ? kInfinity : options_.weight * kBelow;
  const int64_t filled = std::max<int64_t>(1, options_.max_batch_tokens / kFillShare);
  for (int64_t tokens = 0; !steps.empty();) {
    const Step step = steps.top();
    steps.pop();
    const NodeId computed = tree_.parent(Item(step.path, step.item));
    if (!planned_[computed]) {
      if (tokens >= (step.slack > above ? options_.max_batch_tokens : filled)) break;
      if (tokens > 0 && step.slack < -below) break;
      planned_[computed] = true;
      ++tokens;
    }
    push(step.slack - a_token, step.path_end, step.path, step.item + 1);
  }
}

// Nats that a token takes from a bound, as far as was seen.
double BestSearch::GuessedLoss() const {
  return -kWinning * (kGuess * kGuessTokens + known_sum_) /
         (kGuessTokens + static_cast<double>(known_));
}

// The n-th best total of a list if every unknown token takes `a_token` from its bound.
double BestSearch::GuessedToBeat(const List& list, double a_token) const {
  std::vector<double> totals;
  for (const size_t h : list.finished) totals.push_back(hypotheses_[h].total);
  for (const size_t h : list.open) {
    totals.push_back(hypotheses_[h].total - a_token * static_cast<double>(hypotheses_[h].unknown));
  }
  const size_t last = std::min(totals.size(), static_cast<size_t>(options_.n)) - 1;
  std::nth_element(totals.begin(), totals.begin() + last, totals.end(), std::greater<>());
  return totals[last] - options_.within;
}

// The first unknown item from `item` of `path` on, of the paths before `path_end`.
bool BestSearch::NextUnknown(size_t path_end, size_t* path, size_t* item) const {
  for (; *path < path_end; ++*path, *item = 0) {
    for (; *item < ItemCount(*path); ++*item) {
      if (!IsKnown(Item(*path, *item))) return true;
    }
  }
  return false;
}

// All that the planned nodes can tell of hypotheses that are open.
void BestSearch::AskPlanned(TokenPaths* asked, std::vector<size_t>* path_of) {
  std::fill(asked_.begin(), asked_.end(), false);
  for (const size_t i : open_lists_) {
    for (const size_t h : all_[i].open) {
      const size_t path_end = hypotheses_[h].path_end;
      size_t path = hypotheses_[h].path_begin, item = 0;
      while (NextUnknown(path_end, &path, &item) && planned_[tree_.parent(Item(path, item))]) {
        const size_t first = item, of = path;
        size_t last = item;
        while (path == of && planned_[tree_.parent(Item(path, item))]) {
          last = item++;
          if (!NextUnknown(path_end, &path, &item)) break;
        }
        if (!asked_[Item(of, last)]) Ask(of, first, last, asked, path_of);
        if (path == of) break;
      }
    }
  }
}

void BestSearch::AskSubtracted(TokenPaths* asked, std::vector<size_t>* path_of) {
  std::fill(asked_.begin(), asked_.end(), false);
  for (const size_t i : open_lists_) {
    for (const size_t h : all_[i].open) {
      if (hypotheses_[h].bounded) continue;
      for (size_t p = hypotheses_[h].path_begin; p < hypotheses_[h].path_end; ++p) {
        if (lists_.paths.paths[p].sign > 0 || ItemCount(p) == 0) continue;
        const size_t last = ItemCount(p) - 1;
        if (!asked_[Item(p, last)]) Ask(p, 0, last, asked, path_of);
      }
    }
  }
}

// Where nothing is kept between passes: the hypotheses of some lists, whole.
void BestSearch::AskWhole(TokenPaths* asked, std::vector<size_t>* path_of) {
  std::fill(asked_.begin(), asked_.end(), false);
  int64_t tokens = 0;
  for (const size_t i : open_lists_) {
    for (const size_t h : all_[i].open) {
      for (size_t p = hypotheses_[h].path_begin; p < hypotheses_[h].path_end; ++p) {
        if (ItemCount(p) == 0 || asked_[Item(p, ItemCount(p) - 1)]) continue;
        tokens += lists_.paths.paths[p].size();
        Ask(p, 0, ItemCount(p) - 1, asked, path_of);
      }
    }
    if (tokens >= options_.max_batch_tokens) return;
  }
}

// Items [first, last] of a path.
void BestSearch::Ask(size_t path, size_t first, size_t last, TokenPaths* asked,
                     std::vector<size_t>* path_of) {
  const Path& whole = lists_.paths.paths[path];
  const int32_t begin = whole.scored_begin + static_cast<int32_t>(first);
  const int32_t size = std::min(whole.size(), whole.scored_begin + static_cast<int32_t>(last) + 1);
  Path part = whole.First(size, std::min(begin, size));
  part.ends_word = part.ends_word && last + 1 == ItemCount(path);
  part.alternative = asked->candidates;
  asked->paths.push_back(std::move(part));
  asked->candidate_of.push_back(asked->candidates++);
  path_of->push_back(path);
  for (size_t i = first; i <= last; ++i) asked_[Item(path, i)] = true;
}

void BestSearch::Learn(const TokenPaths& asked, const std::vector<size_t>& path_of,
                       const PathScores& scores) {
  const auto set = [this](NodeId node, float log_prob) {
    if (IsKnown(node) || std::isnan(log_prob)) return;
    tree_.set_log_prob(node, log_prob);
    known_sum_ += std::max(log_prob, kLeastAToken);
    ++known_;
  };
  for (size_t k = 0; k < path_of.size(); ++k) {
    const size_t path = path_of[k];
    size_t item = asked.paths[k].scored_begin - lists_.paths.paths[path].scored_begin;
    for (const float log_prob : scores.log_probs[k]) set(Item(path, item++), log_prob);
    if (asked.paths[k].ends_word) set(Item(path, item), scores.word_end[k]);
  }
}

std::vector<BestList> BestSearch::Results() const {
  std::vector<BestList> results;
  for (const List& list : all_) {
    BestList& result = results.emplace_back();
    std::vector<size_t> order(list.end - list.begin);
    std::iota(order.begin(), order.end(), list.begin);
    // Finished ones first; of the others, by their bounds.
    std::sort(order.begin(), order.end(), [this](size_t a, size_t b) {
      const bool exact_a = hypotheses_[a].unknown == 0, exact_b = hypotheses_[b].unknown == 0;
      return exact_a != exact_b ? exact_a : Better(a, b);
    });
    const size_t n = std::min(order.size(), static_cast<size_t>(options_.n));
    std::sort(order.begin() + n, order.end());
    for (size_t k = 0; k < order.size(); ++k) {
      const Hypothesis& one = hypotheses_[order[k]];
      (k < n ? result.best : result.beaten)
          .push_back({static_cast<int64_t>(order[k] - list.begin), one.log_prob, one.total,
                      one.unknown == 0});
    }
    if (n == 0) continue;
    if (!result.best.back().exact) result.gap = kInfinity;
    for (const BestHypothesis& other : result.beaten) {
      result.gap = std::max(result.gap, Above(other.total, result.best.back().total));
    }
  }
  return results;
}

}  // namespace lmfusion
