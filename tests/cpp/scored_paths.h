#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/token_paths.h"
#include "cache/path_scorer.h"
#include "hash_lm.h"
#include "tree/token_tree.h"

// Calls of token paths, and what they should give by hash_lm.h.
namespace lmfusion {

using Tokens = std::vector<int32_t>;
constexpr double kTolerance = 2e-5;

inline int64_t NodeBytes() { return TokenTree::node_bytes(); }
inline int64_t SlotBytes() { return HashLM().slot_bytes(); }
inline int64_t TokenBytes() { return SlotBytes() + NodeBytes(); }

// One alternative and candidate a path, scored from scored_begin[i] on. Half of each path is a
// prefix, of a vector that is longer than what is used of it.
inline TokenPaths Paths(const std::vector<Tokens>& texts, const std::vector<int32_t>& scored_begin,
                        bool ends_word = false) {
  TokenPaths paths;
  for (size_t i = 0; i < texts.size(); ++i) {
    TokenPaths::Path path;
    const size_t shared = texts[i].size() / 2;
    path.prefix = std::make_shared<const Tokens>(texts[i]);
    path.prefix_size = static_cast<int32_t>(shared);
    path.tail.assign(texts[i].begin() + shared, texts[i].end());
    path.scored_begin = scored_begin[i];
    path.ends_word = ends_word && !texts[i].empty();
    path.alternative = static_cast<int32_t>(i);
    paths.paths.push_back(path);
    paths.candidate_of.push_back(static_cast<int32_t>(i));
  }
  paths.candidates = static_cast<int32_t>(texts.size());
  return paths;
}

// Where the last `scored` tokens of each text begin.
inline std::vector<int32_t> LastTokens(const std::vector<Tokens>& texts, int32_t scored) {
  std::vector<int32_t> begins;
  for (const Tokens& text : texts) begins.push_back(static_cast<int32_t>(text.size()) - scored);
  return begins;
}

// Scores that ExpectRight compared, of all threads.
inline std::atomic<int64_t> compared_scores{0};

inline void ExpectRight(const std::vector<Tokens>& texts, const std::vector<int32_t>& scored_begin,
                        const PathScores& scores, bool ends_word = false) {
  ASSERT_EQ(scores.log_probs.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    ASSERT_EQ(scores.log_probs[i].size(), texts[i].size() - scored_begin[i]);
    compared_scores += static_cast<int64_t>(scores.log_probs[i].size());
    uint64_t hash = HashModel::Hash(texts[i], scored_begin[i]);
    for (size_t k = 0; k < scores.log_probs[i].size(); ++k) {
      const int32_t token = texts[i][scored_begin[i] + k];
      ASSERT_NEAR(scores.log_probs[i][k], HashModel::LogProbAfter(hash, token), kTolerance)
          << "path " << i << " token " << scored_begin[i] + k;
      hash = HashModel::Extend(hash, token);
    }
    if (ends_word && !texts[i].empty()) {
      ASSERT_NEAR(scores.word_end[i], HashModel::WordEnd(texts[i]), kTolerance) << "path " << i;
    }
  }
}

// Scores the last `scored` tokens of each text, and expects what is right.
inline void ExpectScores(PathScorer& scorer, const std::vector<Tokens>& texts, int32_t scored,
                         const std::string& cache_namespace = "", bool ends_word = false) {
  const std::vector<int32_t> begins = LastTokens(texts, scored);
  ExpectRight(texts, begins, scorer.Score(Paths(texts, begins, ends_word), cache_namespace),
              ends_word);
}

// Texts that branch, repeat and are prefixes of each other; all begin with 1.
inline std::vector<Tokens> RandomTexts(std::mt19937& random, size_t count, size_t longest) {
  std::vector<Tokens> texts{{1}};
  while (texts.size() < count) {
    Tokens text = texts[random() % texts.size()];
    text.resize(1 + random() % text.size());
    for (size_t more = random() % 6; more > 0 && text.size() < longest; --more) {
      text.push_back(static_cast<int32_t>(random() % 4 == 0 ? random() % 50 : random() % 3));
    }
    texts.push_back(text);
  }
  return texts;
}

inline std::vector<int32_t> RandomBegins(std::mt19937& random, const std::vector<Tokens>& texts) {
  std::vector<int32_t> begins;
  for (const Tokens& text : texts) {
    begins.push_back(1 + static_cast<int32_t>(random() % text.size()));
  }
  return begins;
}

// A scorer whose cache holds `tokens`, over HashLM or another model.
inline std::unique_ptr<PathScorer> ScorerOf(std::unique_ptr<CausalLM> model, int64_t tokens,
                                            Mode mode = Mode::kTree, int64_t batch = 512) {
  PathScorerOptions options;
  options.mode = mode;
  options.max_batch_tokens = batch;
  options.kv_cache_bytes = tokens * TokenBytes();
  return CachedPathScorer(std::move(model), options);
}
inline std::unique_ptr<PathScorer> HashScorer(int64_t tokens, Mode mode = Mode::kTree,
                                              int64_t batch = 512) {
  return ScorerOf(std::make_unique<HashLM>(), tokens, mode, batch);
}

inline Stats StatsOf(const PathScorer& scorer) {
  Stats stats;
  scorer.AddTo(&stats);
  return stats;
}

}  // namespace lmfusion
