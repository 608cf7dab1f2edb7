#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "flashlight/lib/text/decoder/lm/LM.h"
#include "lmfusion/state.h"

// For programs that have flashlight-text's headers; the library itself is built without them.

namespace lmfusion {

// A word language model for flashlight-text's decoders (fl::lib::text::LexiconDecoder):
//   auto lm = std::make_shared<lmfusion::FlashlightLM>(scorer, words);
// Scores are log p in nats; the decoder's lmWeight and wordScore are applied to them. updateCache,
// which decoders call with the states of a new beam, computes all of these in one forward pass.
// States are interned by their words, so hypotheses merge. One decoder, one thread. It keeps the
// scorer's model and cache.
class FlashlightLM : public fl::lib::text::LM {
 public:
  // words: the word of each index of the decoder's word dictionary; an empty word (that of the
  // unknown word, say) costs nothing and adds no text. endings: how an utterance ends, for
  // finish().
  FlashlightLM(const LMFusionScorer& scorer, std::vector<std::string> words,
               std::vector<std::string> endings = {".", "?", "!"})
      : scorer_(scorer, std::move(endings)), words_(std::move(words)) {}

  // Forgets the states of the last utterance.
  fl::lib::text::LMStatePtr start(bool /*start_with_nothing*/) override {
    known_.clear();
    auto root = std::make_shared<fl::lib::text::LMState>();
    known_.emplace(root.get(), Known{root, scorer_.start(), 0.0f});
    return root;
  }

  std::pair<fl::lib::text::LMStatePtr, float> score(const fl::lib::text::LMStatePtr& state,
                                                    const int word_index) override {
    if (word_index < 0 || word_index >= static_cast<int>(words_.size())) {
      throw std::invalid_argument("word index " + std::to_string(word_index) +
                                  " is not within the " + std::to_string(words_.size()) +
                                  " words of the adapter; give it the decoder's dictionary");
    }
    auto child = state->child<fl::lib::text::LMState>(word_index);
    auto found = known_.find(child.get());
    if (found == known_.end()) {
      const State before = Find(state).state;
      const std::string& word = words_[word_index];
      const auto [log_prob, after] =
          word.empty() ? std::make_pair(0.0, before) : scorer_.score(before, word);
      found = known_.emplace(child.get(), Known{child, after, static_cast<float>(log_prob)}).first;
    }
    return {child, found->second.log_prob};
  }

  std::pair<fl::lib::text::LMStatePtr, float> finish(
      const fl::lib::text::LMStatePtr& state) override {
    auto child = state->child<fl::lib::text::LMState>(static_cast<int>(words_.size()));
    auto found = known_.find(child.get());
    if (found == known_.end()) {
      const State before = Find(state).state;
      const auto log_prob = static_cast<float>(scorer_.finish(before));
      found = known_.emplace(child.get(), Known{child, before, log_prob}).first;
    }
    return {child, found->second.log_prob};
  }

  void updateCache(std::vector<fl::lib::text::LMStatePtr> states) override {
    std::vector<State> texts;
    for (const auto& state : states) {
      Known& known = Find(state);
      if (!std::exchange(known.computed, true)) texts.push_back(known.state);
    }
    if (!texts.empty()) scorer_.prefetch(texts);
  }

 private:
  struct Known {
    fl::lib::text::LMStatePtr kept;  // so that no other state gets its address
    State state;
    float log_prob;
    bool computed = false;
  };

  Known& Find(const fl::lib::text::LMStatePtr& state) {
    const auto found = known_.find(state.get());
    if (found != known_.end()) return found->second;
    throw std::invalid_argument("the state is not one of this adapter since its last start()");
  }

  StateScorer scorer_;
  std::vector<std::string> words_;
  std::unordered_map<const fl::lib::text::LMState*, Known> known_;
};

}  // namespace lmfusion
