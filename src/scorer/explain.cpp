#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

#include "base/log_sum_exp.h"
#include "scorer/call.h"
#include "scorer/candidate_sums.h"
#include "scorer/scorer_impl.h"

namespace lmfusion {
namespace {

using Path = TokenPaths::Path;

std::vector<Explanation::Token> Tokens(const Path& path, const std::vector<float>& log_probs,
                                       const std::vector<bool>& reused,
                                       const Tokenizer& tokenizer) {
  std::vector<Explanation::Token> tokens;
  for (const int32_t id : path.tokens()) {
    const auto i = static_cast<int32_t>(tokens.size());
    Explanation::Token token;
    token.id = id;
    if (id < tokenizer.VocabularySize()) token.piece = tokenizer.Piece(id);
    token.scored = i >= path.scored_begin;
    token.log_prob =
        token.scored ? log_probs[i - path.scored_begin] : std::numeric_limits<float>::quiet_NaN();
    token.reused = !reused.empty() && reused[i];
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void AppendScored(const std::vector<Explanation::Token>& tokens, const Path& path,
                  std::vector<Explanation::Token>* to) {
  to->insert(to->end(), tokens.begin() + path.scored_begin, tokens.end());
}

// The tokens of one alternative of a single candidate. A text that is longer than the context may
// be has several paths, each of which scores a part of it after a later beginning.
Explanation ExplainTokens(const TokenPaths& paths, int32_t alternative, const PathScores& scores,
                          const std::vector<std::vector<bool>>& reused,
                          const Tokenizer& tokenizer) {
  Explanation explanation;
  for (size_t i = 0; i < paths.paths.size(); ++i) {
    const Path& path = paths.paths[i];
    if (path.alternative != alternative) continue;
    std::vector<Explanation::Token> tokens =
        Tokens(path, scores.log_probs[i], reused[i], tokenizer);
    if (path.sign < 0) {
      explanation.word_begin_log_prob += scores.word_end[i];
      AppendScored(tokens, path, &explanation.subtracted);
    } else if (explanation.tokens.empty()) {
      explanation.tokens = std::move(tokens);
      explanation.word_end_log_prob += scores.word_end[i];
    } else {
      AppendScored(tokens, path, &explanation.tokens);
      explanation.word_end_log_prob += scores.word_end[i];
    }
  }
  return explanation;
}

}  // namespace

Explanation LMFusionScorer::explain(const std::string& context, const std::string& word,
                                    const std::string& cache_namespace,
                                    std::optional<Join> call_join) {
  Impl& scorer = impl();
  const Join join = call_join.value_or(scorer.options.join);
  ScorerCall call(scorer, cache_namespace);
  const TokenPaths paths = scorer.Text().Continuations({context}, {{word}}, join, call.text());
  CallReport report;
  const PathScores scores = call.ScoreTokens(paths, &report);
  // The call is not finished, for stats() counts those of decoders. Forms are in the order of the
  // paths' alternatives.
  const std::vector<CasedText> forms = scorer.text_stage->Alternatives(context, word, join);
  const std::vector<double> sums = AlternativeSums(paths, scores);
  const auto likeliest = std::max_element(sums.begin(), sums.end()) - sums.begin();
  Explanation explanation = ExplainTokens(paths, static_cast<int32_t>(likeliest), scores,
                                          report.reused, *scorer.tokenizer);
  explanation.text = forms[likeliest].text;
  explanation.context_bytes = forms[likeliest].context_bytes;
  explanation.log_prob = sums[likeliest];
  for (size_t i = 0; i < sums.size(); ++i) explanation.forms.push_back({forms[i].text, sums[i]});
  explanation.candidate_log_prob = LogSumExp(sums);
  explanation.score =
      scorer.options.weight * explanation.candidate_log_prob + scorer.options.word_insertion_bonus;
  explanation.tokens_computed = report.tokens_computed;
  return explanation;
}

std::vector<std::vector<Explanation::Token>> LMFusionScorer::token_log_probs(
    const std::vector<std::string>& texts, const std::string& cache_namespace) {
  Impl& scorer = impl();
  ScorerCall call(scorer, cache_namespace);
  const TokenPaths paths = scorer.Text().Texts(texts, false, call.text());
  CallReport report;
  const PathScores scores = call.ScoreTokens(paths, &report);
  call.Finish();
  std::vector<std::vector<Explanation::Token>> rows(texts.size());
  for (size_t i = 0; i < paths.paths.size(); ++i) {
    const Path& path = paths.paths[i];
    const std::vector<Explanation::Token> tokens =
        Tokens(path, scores.log_probs[i], report.reused[i], *scorer.tokenizer);
    AppendScored(tokens, path, &rows[paths.candidate_of[path.alternative]]);
  }
  return rows;
}

}  // namespace lmfusion
