#pragma once

#include <map>
#include <string>
#include <vector>

#include "emissions.h"
#include "lmfusion/state.h"

struct SearchOptions {
  int beam = 64;          // hypotheses a frame
  double lm_weight = 0;   // of log p; 0 asks no language model
  double word_bonus = 0;  // for every word
};

// Best-path CTC search over the words of a lexicon, one space between words. At every frame, all
// words that were completed are scored in one call of the language model.
class LexiconSearch {
 public:
  LexiconSearch(const std::vector<std::string>& lexicon, const lmfusion::StateScorer& lm,
                SearchOptions options);

  // The best sentence.
  std::string Decode(const Emissions& emissions) const;

 private:
  struct Node {                   // of the tree of all spellings
    std::map<int, int> children;  // unit -> node
    std::string word;             // that ends here; empty: none
  };
  struct Hypothesis {
    lmfusion::State text;  // the complete words
    int node = 0;          // how far the open word is
    int unit = kBlank;     // of the last frame
    double score = 0;
  };

  // Completes the open words of `hypotheses`, in one call; each must be at the end of a word.
  void Complete(std::vector<Hypothesis>& hypotheses) const;
  std::vector<Hypothesis> Pruned(std::vector<Hypothesis> hypotheses) const;

  std::vector<Node> nodes_;
  const lmfusion::StateScorer& lm_;
  SearchOptions options_;
};
