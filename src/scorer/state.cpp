#include "lmfusion/state.h"

#include <unordered_map>

#include "base/log_sum_exp.h"
#include "lmfusion/join.h"
#include "lmfusion/scorer.h"

namespace lmfusion {

namespace {

std::vector<std::string> Texts(const std::vector<State>& states) {
  std::vector<std::string> texts;
  for (const State& state : states) texts.push_back(state.text());
  return texts;
}

}  // namespace

State::State() {
  static const std::shared_ptr<const Held> empty =
      std::make_shared<Held>(Held{"", std::hash<std::string>()("")});
  held_ = empty;
}

State::State(std::string text) {
  const size_t hash = std::hash<std::string>()(text);
  held_ = std::make_shared<Held>(Held{std::move(text), hash});
}

StateScorer::StateScorer(const LMFusionScorer& scorer, std::vector<std::string> endings,
                         std::string cache_namespace, History history, std::optional<Join> join)
    : scorer_(std::make_shared<LMFusionScorer>(scorer.Sharing())),
      endings_(std::move(endings)),
      cache_namespace_(std::move(cache_namespace)),
      history_(std::move(history)),
      join_(join.value_or(scorer_->options().join)) {}

State StateScorer::start(std::string text) const { return State(std::move(text)); }

std::pair<double, State> StateScorer::score(const State& state, const std::string& word) const {
  return score({{state, word}}).front();
}

std::vector<std::pair<double, State>> StateScorer::score(
    const std::vector<std::pair<State, std::string>>& questions) const {
  std::unordered_map<State, size_t> row_of;
  std::vector<std::string> contexts;
  std::vector<std::vector<std::string>> words;
  std::vector<std::pair<size_t, size_t>> places;  // of each question: row, column
  for (const auto& [state, word] : questions) {
    const auto [row, is_new] = row_of.emplace(state, contexts.size());
    if (is_new) {
      contexts.push_back(state.text());
      words.emplace_back();
    }
    places.emplace_back(row->second, words[row->second].size());
    words[row->second].push_back(word);
  }
  CallOptions call;
  call.cache_namespace = cache_namespace_;
  call.history = history_;
  call.join = join_;
  const auto log_probs = scorer_->log_probs(contexts, words, call);
  std::vector<std::pair<double, State>> answers;
  for (size_t i = 0; i < questions.size(); ++i) {
    const auto& [state, word] = questions[i];
    std::string text = state.text();
    text.append(Separator(text, word, join_)).append(word);
    answers.emplace_back(log_probs[places[i].first][places[i].second],
                         word.empty() ? state : State(std::move(text)));
  }
  return answers;
}

double StateScorer::finish(const State& state) const {
  return finish(std::vector<State>{state}).front();
}

std::vector<double> StateScorer::finish(const std::vector<State>& states) const {
  if (endings_.empty()) return std::vector<double>(states.size(), 0.0);
  std::vector<double> log_probs;
  for (const auto& row :
       scorer_->score_endings(Texts(states), endings_, cache_namespace_, history_)) {
    log_probs.push_back(LogSumExp(row));
  }
  return log_probs;
}

// An ending is predicted from the whole text, as the next word will be.
void StateScorer::prefetch(const std::vector<State>& states) const {
  scorer_->score_endings(Texts(states), {endings_.empty() ? "." : endings_.front()},
                         cache_namespace_, history_);
}

}  // namespace lmfusion
