#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace lmfusion {

// The texts of one call as token paths; what the text stage hands to the path scorer.
//
// A candidate's log-probability is logsumexp over its alternatives (casings) of the alternative's
// sum over its paths of sign * sum(log p of the path's scored tokens). Nearly always a candidate
// has one alternative of one path.
struct TokenPaths {
  using Tokens = std::vector<int32_t>;
  struct Path {
    // The path is prefix[0, prefix_size) followed by tail. Paths of one context share the prefix.
    std::shared_ptr<const Tokens> prefix;  // null: none
    int32_t prefix_size = 0;
    Tokens tail;
    int32_t scored_begin = 0;  // index in the path; tokens from here on are scored
    int32_t alternative = 0;
    float sign = 1;
    // Boundary policy "word": add sign * log p(a word ends after the last token).
    bool ends_word = false;
    int32_t size() const { return prefix_size + static_cast<int32_t>(tail.size()); }
    // Prefix and tail.
    Tokens tokens() const;
    // The first `size` tokens, scored from `scored_begin` on; a word ends there only where all are.
    Path First(int32_t size, int32_t scored_begin) const;
  };
  std::vector<Path> paths;
  std::vector<int32_t> candidate_of;  // [alternatives], ascending
  int32_t candidates = 0;
};

// Tokens of all paths, nothing shared.
uint64_t TokenCount(const TokenPaths& paths);

// What the path scorer gives back for them.
struct PathScores {
  explicit PathScores(const TokenPaths& of)
      : log_probs(of.paths.size()), word_end(of.paths.size(), 0.0f) {}

  std::vector<std::vector<float>> log_probs;  // [paths][scored tokens], nats
  std::vector<float> word_end;                // [paths]; 0 unless ends_word
};

}  // namespace lmfusion
