#include "scorer/explanation.h"

#include <algorithm>
#include <limits>

#include "scorer/candidate_sums.h"

namespace lmfusion {
namespace {

using Path = TokenPaths::Path;

std::vector<Explanation::Token> Tokens(const Path& path, const std::vector<float>& log_probs,
                                       const std::vector<bool>& reused,
                                       const Tokenizer& tokenizer) {
  std::vector<Explanation::Token> tokens;
  const TokenPaths::Tokens ids = path.tokens();
  for (int32_t i = 0; i < path.size(); ++i) {
    Explanation::Token token;
    token.id = ids[i];
    if (token.id < tokenizer.VocabularySize()) token.piece = tokenizer.Piece(token.id);
    token.scored = i >= path.scored_begin;
    token.log_prob =
        token.scored ? log_probs[i - path.scored_begin] : std::numeric_limits<float>::quiet_NaN();
    token.reused = !reused.empty() && reused[i];
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

Explanation ExplainTokens(const TokenPaths& paths, const PathScores& scores,
                          const std::vector<std::vector<bool>>& reused,
                          const Tokenizer& tokenizer) {
  const std::vector<double> sums = AlternativeSums(paths, scores);
  const auto best = std::max_element(sums.begin(), sums.end()) - sums.begin();
  Explanation explanation;
  for (size_t i = 0; i < paths.paths.size(); ++i) {
    const Path& path = paths.paths[i];
    if (path.alternative != best) continue;
    std::vector<Explanation::Token> tokens =
        Tokens(path, scores.log_probs[i], reused[i], tokenizer);
    if (path.sign > 0) {
      explanation.tokens = std::move(tokens);
      explanation.word_end_log_prob += scores.word_end[i];
    } else {
      explanation.word_begin_log_prob += scores.word_end[i];
      tokens.erase(tokens.begin(), tokens.begin() + path.scored_begin);
      explanation.subtracted.insert(explanation.subtracted.end(), tokens.begin(), tokens.end());
    }
  }
  return explanation;
}

}  // namespace lmfusion
