// Prints what the C++ state interface and the flashlight adapter give for a model, to be compared
// with the same questions asked from Python:  states MODEL
#include <cstdio>
#include <exception>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

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

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    lmfusion::LMFusionScorer scorer(argv[1]);
    States(scorer);
    Flashlight(scorer);
    FloorsAndDeadlines(scorer);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "states: %s\n", error.what());
    return 1;
  }
}
