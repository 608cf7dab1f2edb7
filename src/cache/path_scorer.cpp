#include "cache/path_scorer.h"

#include <limits>
#include <stdexcept>
#include <string>

namespace lmfusion {
namespace {

void CheckTokens(const int32_t* tokens, size_t count, int64_t vocabulary_size) {
  for (size_t i = 0; i < count; ++i) {
    if (tokens[i] >= 0 && tokens[i] < vocabulary_size) continue;
    throw std::invalid_argument("token id " + std::to_string(tokens[i]) +
                                " is not in the model's vocabulary of " +
                                std::to_string(vocabulary_size) + " tokens");
  }
}

[[noreturn]] void ThrowNothingKept() {
  throw std::invalid_argument(
      "this scorer keeps nothing between calls (mode \"tree\" does, with a model that was exported "
      "with tree attention), so there is no cache to fill, save or load");
}

}  // namespace

PathScores PathScorer::Known(const TokenPaths& paths, const std::string&) {
  constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();
  PathScores known(paths);
  for (size_t i = 0; i < paths.paths.size(); ++i) {
    const TokenPaths::Path& path = paths.paths[i];
    known.log_probs[i].assign(path.size() - path.scored_begin, kUnknown);
    if (path.ends_word) known.word_end[i] = kUnknown;
  }
  return known;
}

int64_t PathScorer::Prime(const TokenPaths&, const std::string&) { ThrowNothingKept(); }
int64_t PathScorer::Save(const std::string&, const TokenPaths*, const std::string&) {
  ThrowNothingKept();
}
int64_t PathScorer::Load(const std::string&, const std::string&) { ThrowNothingKept(); }

void PathScorer::CheckPaths(const TokenPaths& paths, const ModelDescription& description) {
  const TokenPaths::Tokens* checked = nullptr;  // paths of one context come one after another
  for (const TokenPaths::Path& path : paths.paths) {
    if (path.prefix != nullptr && path.prefix.get() != checked) {
      CheckTokens(path.prefix->data(), path.prefix->size(), description.vocabulary_size);
      checked = path.prefix.get();
    }
    CheckTokens(path.tail.data(), path.tail.size(), description.vocabulary_size);
    if (path.scored_begin < path.size() && path.scored_begin < 1) {
      throw std::invalid_argument(
          "the first token of a path has no context and so no probability; put a start token "
          "before it or score from the second token on");
    }
    if (path.ends_word && path.size() < 1) {
      throw std::invalid_argument("an empty path has no last word that could end");
    }
    if (description.max_positions > 0 && path.size() > description.max_positions) {
      throw std::invalid_argument("a path of " + std::to_string(path.size()) +
                                  " tokens is longer than the model's " +
                                  std::to_string(description.max_positions) + " positions");
    }
  }
}

}  // namespace lmfusion
