#include "lexicon_search.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>
#include <utility>

using lmfusion::State;

LexiconSearch::LexiconSearch(const std::vector<std::string>& lexicon,
                             const lmfusion::StateScorer& lm, SearchOptions options)
    : nodes_(1), lm_(lm), options_(options) {
  for (const std::string& word : lexicon) {
    int node = 0;
    for (const char letter : word) {
      const auto [child, is_new] =
          nodes_[node].children.emplace(UnitOf(letter), static_cast<int>(nodes_.size()));
      node = child->second;
      if (is_new) nodes_.emplace_back();
    }
    nodes_[node].word = word;
  }
}

std::string LexiconSearch::Decode(const Emissions& emissions) const {
  std::vector<Hypothesis> beam(1);
  beam[0].text = lm_.start();
  for (const std::vector<float>& frame : emissions) {
    std::vector<Hypothesis> next, completed;
    for (const Hypothesis& old : beam) {
      const auto add = [&](std::vector<Hypothesis>& where, int node, int unit) {
        where.push_back({old.text, node, unit, old.score + frame[unit]});
      };
      add(next, old.node, kBlank);
      if (old.unit != kBlank) add(next, old.node, old.unit);
      for (const auto& [unit, child] : nodes_[old.node].children) {
        if (unit != old.unit) add(next, child, unit);
      }
      if (!nodes_[old.node].word.empty()) add(completed, old.node, kSpace);
    }
    // Only what would survive without the language model is worth a question.
    completed = Pruned(std::move(completed));
    Complete(completed);
    next.insert(next.end(), completed.begin(), completed.end());
    beam = Pruned(std::move(next));
  }
  std::vector<Hypothesis> ended;
  for (const Hypothesis& hypothesis : beam) {
    if (!nodes_[hypothesis.node].word.empty()) ended.push_back(hypothesis);
  }
  if (ended.empty()) return beam.front().text.text();
  Complete(ended);
  if (options_.lm_weight != 0) {
    std::vector<State> texts;
    for (const Hypothesis& hypothesis : ended) texts.push_back(hypothesis.text);
    const std::vector<double> ends = lm_.finish(texts);
    for (size_t i = 0; i < ended.size(); ++i) ended[i].score += options_.lm_weight * ends[i];
  }
  const auto best =
      std::max_element(ended.begin(), ended.end(),
                       [](const Hypothesis& a, const Hypothesis& b) { return a.score < b.score; });
  return best->text.text();
}

void LexiconSearch::Complete(std::vector<Hypothesis>& hypotheses) const {
  if (options_.lm_weight == 0) {
    for (Hypothesis& hypothesis : hypotheses) {
      const std::string& before = hypothesis.text.text();
      const std::string& word = nodes_[std::exchange(hypothesis.node, 0)].word;
      hypothesis.text = State(before.empty() ? word : before + " " + word);
      hypothesis.score += options_.word_bonus;
    }
    return;
  }
  std::vector<std::pair<State, std::string>> questions;
  for (const Hypothesis& hypothesis : hypotheses) {
    questions.emplace_back(hypothesis.text, nodes_[hypothesis.node].word);
  }
  const auto answers = lm_.score(questions);
  for (size_t i = 0; i < hypotheses.size(); ++i) {
    hypotheses[i].text = answers[i].second;
    hypotheses[i].node = 0;
    hypotheses[i].score += options_.lm_weight * answers[i].first + options_.word_bonus;
  }
}

// The best of each (text, node, unit), and of these the best `beam`.
std::vector<LexiconSearch::Hypothesis> LexiconSearch::Pruned(
    std::vector<Hypothesis> hypotheses) const {
  std::sort(hypotheses.begin(), hypotheses.end(),
            [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  std::unordered_map<State, std::vector<std::pair<int, int>>> seen;
  std::vector<Hypothesis> kept;
  for (Hypothesis& hypothesis : hypotheses) {
    auto& places = seen[hypothesis.text];
    const auto place = std::make_pair(hypothesis.node, hypothesis.unit);
    if (std::find(places.begin(), places.end(), place) != places.end()) continue;
    places.push_back(place);
    kept.push_back(std::move(hypothesis));
    if (static_cast<int>(kept.size()) == options_.beam) break;
  }
  return kept;
}
