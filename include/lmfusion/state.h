#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lmfusion/history.h"
#include "lmfusion/options.h"

namespace lmfusion {

class LMFusionScorer;

// How far a hypothesis has come: its text. Immutable, two pointers large, cheap to copy, hash and
// compare; two states of the same text are equal. A state holds no slot of the cache, so thousands
// may live, each stays valid for ever, and what the cache dropped is computed anew when asked for.
class State {
 public:
  State();  // the empty text
  explicit State(std::string text);

  const std::string& text() const { return held_->text; }
  size_t hash() const { return held_->hash; }

  friend bool operator==(const State& a, const State& b) {
    return a.held_ == b.held_ || (a.hash() == b.hash() && a.text() == b.text());
  }
  friend bool operator!=(const State& a, const State& b) { return !(a == b); }

 private:
  struct Held {
    std::string text;
    size_t hash;
  };
  std::shared_ptr<const Held> held_;
};

// A scorer asked word by word, as n-gram libraries are. All log-probabilities are nats, without
// weight and bonus, and equal what LMFusionScorer::log_probs gives for the same text. Errors are
// those of LMFusionScorer. Thread safe. It shares the scorer's model and cache, and keeps them: the
// scorer that it was made of may be moved or destroyed before it.
class StateScorer {
 public:
  // history: before every state's text. endings: how a text may end, "" for the end-of-text token;
  // for finish(). join: in place of the scorer's. Throws Error for a scorer that was moved from.
  explicit StateScorer(const LMFusionScorer& scorer, std::vector<std::string> endings = {""},
                       std::string cache_namespace = "", History history = {},
                       std::optional<Join> join = {});

  // Where `text`, the text before the utterance, ends.
  State start(std::string text = "") const;

  // log p(word | state), and the state after the word (joined as Separator in join.h says).
  std::pair<double, State> score(const State& state, const std::string& word) const;
  // [questions]; one call of the model for all of them.
  std::vector<std::pair<double, State>> score(
      const std::vector<std::pair<State, std::string>>& questions) const;

  // log p(the text ends in one of the endings | state); 0 without endings.
  double finish(const State& state) const;
  // [states]; one call for all of them.
  std::vector<double> finish(const std::vector<State>& states) const;

  // Computes what any word after these states will need, in one call. Never changes a score.
  void prefetch(const std::vector<State>& states) const;

 private:
  std::shared_ptr<LMFusionScorer> scorer_;  // of the same model and cache
  std::vector<std::string> endings_;
  std::string cache_namespace_;
  History history_;
  Join join_;
};

}  // namespace lmfusion

template <>
struct std::hash<lmfusion::State> {
  size_t operator()(const lmfusion::State& state) const noexcept { return state.hash(); }
};
