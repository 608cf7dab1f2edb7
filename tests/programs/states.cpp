// Prints what the C++ state interface and the flashlight adapter give for a model, to be compared
// with the same questions asked from Python:  states MODEL SMALL_CACHE_BYTES
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "lmfusion/flashlight_lm.h"
#include "lmfusion/scorer.h"
#include "lmfusion/state.h"

namespace {

const std::vector<std::string> kWords = {"the", "cat", "sand", ""};

void Print(const char* name, double value) { std::printf("%s %.9g\n", name, value); }

void States(lmfusion::LMFusionScorer& scorer) {
  const lmfusion::StateScorer states(scorer);
  const auto [first, the] = states.score(states.start(), "the");
  const auto [second, cat] = states.score(the, "cat");
  Print("the", first);
  Print("cat", second);
  Print("finish", states.finish(cat));
  Print("same", cat == lmfusion::State("the cat") && cat != the);
  std::unordered_set<lmfusion::State> set = {cat, the, lmfusion::State("the cat")};
  Print("distinct", static_cast<double>(set.size()));

  const auto calls = scorer.stats().calls;
  const auto batch = states.score({{the, "cat"}, {states.start(), "sand"}, {the, "sand"}});
  Print("batch_calls", static_cast<double>(scorer.stats().calls - calls));
  Print("batch_cat", batch[0].first);
  Print("batch_sand", batch[1].first);
  Print("batch_the_sand", batch[2].first);
}

void Prefetch(lmfusion::LMFusionScorer& scorer) {
  const lmfusion::StateScorer states(scorer);
  std::vector<lmfusion::State> beam;
  for (int i = 0; i < 20; ++i) beam.push_back(states.start("the cat sat " + std::to_string(i)));
  scorer.clear_cache();
  scorer.reset_stats();
  states.prefetch(beam);
  const auto prefetched = scorer.stats();
  Print("prefetch_calls", static_cast<double>(prefetched.calls));
  Print("prefetch_computes", prefetched.tokens_computed > 20);
  for (const lmfusion::State& state : beam) states.score(state, "a");  // " a" is one token
  const auto computed = scorer.stats().tokens_computed - prefetched.tokens_computed;
  Print("computed_after_prefetch", static_cast<double>(computed));
}

// 3,600 states that do not fit the cache, all alive, and each still right.
void Eviction(lmfusion::LMFusionScorer& exact, const char* model, int64_t cache_bytes) {
  lmfusion::ScorerOptions options;
  options.kv_cache_bytes = cache_bytes;
  lmfusion::LMFusionScorer scorer(model, options);
  const lmfusion::StateScorer states(scorer), exact_states(exact);
  std::vector<std::pair<lmfusion::State, std::string>> questions;
  for (int a = 0; a < 60; ++a) {
    for (int b = 0; b < 60; ++b) {
      const auto text = "the " + std::to_string(a) + " " + std::to_string(b);
      questions.emplace_back(states.start(text), "cat");
    }
  }
  const auto beam = states.score(questions);
  const auto stats = scorer.stats();
  Print("live_states", static_cast<double>(beam.size()));
  Print("evictions", stats.evictions > 1000);
  Print("within_budget", stats.cache_bytes <= cache_bytes);
  double worst = 0;
  for (size_t i = 0; i < beam.size(); i += 599) {
    const auto& state = beam[i].second;
    const double found = states.score(state, "sat").first;
    worst = std::max(worst, std::abs(found - exact_states.score(state, "sat").first));
  }
  Print("evicted_states_differ_by", worst);
}

void Flashlight(lmfusion::LMFusionScorer& scorer) {
  lmfusion::FlashlightLM lm(scorer, kWords, {""});
  const auto root = lm.start(false);
  const auto [the, first] = lm.score(root, 0);
  const auto [cat, second] = lm.score(the, 1);
  Print("fl_the", first);
  Print("fl_cat", second);
  Print("fl_finish", lm.finish(cat).second);
  Print("fl_interned", lm.score(the, 1).first == cat);
  const auto [unknown, nothing] = lm.score(cat, 3);
  Print("fl_unknown", nothing);
  Print("fl_unknown_finish", lm.finish(unknown).second);

  scorer.clear_cache();
  const auto calls = scorer.stats().calls;
  lm.updateCache({root, the, cat});
  lm.updateCache({root, the, cat});
  Print("fl_update_calls", static_cast<double>(scorer.stats().calls - calls));

  lm.start(false);
  try {
    lm.score(the, 1);
    Print("fl_refuses_old_states", 0);
  } catch (const std::invalid_argument&) {
    Print("fl_refuses_old_states", 1);
  }
}

void FloorsAndDeadlines(lmfusion::LMFusionScorer& scorer) {
  lmfusion::CallOptions call;
  call.floors = {{1.0, -1e9}};
  const auto floored = scorer.log_probs({"the"}, {{"cat", "cat"}}, call);
  Print("floored", floored[0][0]);
  Print("not_floored", floored[0][1]);
  lmfusion::CallOptions late;
  late.deadline = 0;
  Print("late", scorer.score_continuations({"the"}, {{"cat"}}, late)[0][0]);
}

// States of a scorer that was moved and destroyed, and the scorer that was moved from.
void Moved(const char* model) {
  auto first = std::make_unique<lmfusion::LMFusionScorer>(model);
  const lmfusion::StateScorer states(*first);
  lmfusion::LMFusionScorer second = std::move(*first);
  try {
    first->score_texts({"the"});
    Print("moved_from_is_an_error", 0);
  } catch (const lmfusion::Error&) {
    Print("moved_from_is_an_error", 1);
  }
  first.reset();
  Print("moved", second.log_probs({""}, {{"the"}})[0][0]);
  const auto calls = second.stats().calls;
  Print("moved_states", states.score(states.start(), "the").first);
  Print("moved_states_share", static_cast<double>(second.stats().calls - calls));
  { const lmfusion::LMFusionScorer gone = std::move(second); }
  Print("destroyed_states", states.score(states.start(), "the").first);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    lmfusion::LMFusionScorer scorer(argv[1]);
    States(scorer);
    Prefetch(scorer);
    Eviction(scorer, argv[1], std::atoll(argv[2]));
    Flashlight(scorer);
    FloorsAndDeadlines(scorer);
    Moved(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "states: %s\n", error.what());
    return 1;
  }
}
