#include "lmfusion/best.h"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "lmfusion/scorer.h"
#include "scorer/call.h"
#include "scorer/scorer_impl.h"
#include "scorer/shapes.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

// As many as Python's text.split() gives.
int64_t WordCount(const std::string& text) {
  int64_t words = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const Utf8Character character = CharacterAt(text, at);
    const bool is_space = IsPythonSpace(character.value);
    if (!is_space && !in_word) ++words;
    in_word = !is_space;
    at += character.bytes;
  }
  return words;
}

void CheckOptions(const BestOptions& options) {
  const auto refuse = [](const std::string& name, double value, const char* expected) {
    throw std::invalid_argument(name + " = " + std::to_string(value) + "; " + expected);
  };
  for (const auto& [name, given] :
       {std::pair("weight", options.weight),
        std::pair("word_insertion_bonus", options.word_insertion_bonus)}) {
    if (given && !std::isfinite(*given)) refuse(name, *given, "a finite number expected");
  }
  if (options.n < 1) refuse("n", static_cast<double>(options.n), "at least 1 expected");
  if (!(options.gap >= 0)) refuse("gap", options.gap, "0 or more expected");
  if (!(options.within >= 0)) refuse("within", options.within, "0 or more expected");
  CheckDeadline(options.deadline);
}

void CheckLists(const std::vector<std::vector<std::string>>& lists,
                const std::vector<std::vector<double>>& base_scores) {
  Shape shape{"lists", "text", {}};
  for (const auto& list : lists) shape.sizes.push_back(list.size());
  CheckShape("base_scores", base_scores, shape);
  for (size_t i = 0; i < lists.size(); ++i) {
    for (size_t j = 0; j < lists[i].size(); ++j) {
      if (base_scores[i][j] < std::numeric_limits<double>::infinity()) continue;
      throw std::invalid_argument("base_scores[" + std::to_string(i) + "][" + std::to_string(j) +
                                  "] is " + (std::isnan(base_scores[i][j]) ? "NaN" : "infinity") +
                                  "; a number or -infinity expected");
    }
  }
}

}  // namespace

std::vector<BestList> LMFusionScorer::best(const std::vector<std::vector<std::string>>& lists,
                                           const std::vector<std::vector<double>>& base_scores,
                                           const BestOptions& options) {
  CheckOptions(options);
  CheckLists(lists, base_scores);
  Impl& scorer = impl();
  ScorerCall call(scorer, options.cache_namespace);
  const double bonus = options.word_insertion_bonus.value_or(scorer.options.word_insertion_bonus);
  HypothesisLists hypotheses;
  std::vector<std::string> texts;
  for (size_t i = 0; i < lists.size(); ++i) {
    texts.insert(texts.end(), lists[i].begin(), lists[i].end());
    hypotheses.base.insert(hypotheses.base.end(), base_scores[i].begin(), base_scores[i].end());
    hypotheses.ends.push_back(texts.size());
  }
  hypotheses.paths =
      scorer.Text().Texts(texts, options.eos, call.text(), call.Before(options.history));
  for (const std::string& text : texts) {
    hypotheses.bonus.push_back(bonus * static_cast<double>(WordCount(text)));
  }
  BestSearchOptions search;
  search.weight = options.weight.value_or(scorer.options.weight);
  search.n = options.n;
  search.gap = options.gap;
  search.within = options.within;
  search.max_batch_tokens = scorer.options.max_batch_tokens;
  search.shares_prefixes = scorer.shares_prefixes;
  const std::vector<BestList> best = call.Best(std::move(hypotheses), search, options.deadline);
  call.Finish();
  return best;
}

}  // namespace lmfusion
