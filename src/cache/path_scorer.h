#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/token_paths.h"
#include "lmfusion/options.h"
#include "lmfusion/stats.h"
#include "tree/causal_lm.h"

namespace lmfusion {

class PlainLM;

// What one call of PathScorer::Score found and did, whatever other threads did meanwhile.
struct CallReport {
  std::vector<std::vector<bool>>
      reused;                    // [paths][tokens of the path], whether the cache held them
  uint64_t tokens_computed = 0;  // by this call; a token that calls need together, by one of them
};

// Log-probabilities of token paths; nothing here knows of texts. Thread safe.
class PathScorer {
 public:
  virtual ~PathScorer() = default;

  // Throws CacheBudgetError, NumericalError, std::invalid_argument (a token that is not in the
  // vocabulary, a path that is too long, a first token that is to be scored); then nothing is kept
  // of what was not right.
  // report: filled where the call succeeds; may be null.
  virtual PathScores Score(const TokenPaths& paths, const std::string& cache_namespace,
                           CallReport* report = nullptr) = 0;

  // The same of every path on its own: what the cache holds is neither read nor changed, but for
  // what makes room. Calls that come meanwhile wait.
  virtual PathScores ScoreUncached(const TokenPaths& paths) { return Score(paths, "", nullptr); }

  // What is known of the paths without any work of the model; NaN elsewhere.
  virtual PathScores Known(const TokenPaths& paths, const std::string& cache_namespace);
  // Tokens that are kept at once at most.
  virtual int64_t Capacity() const { return std::numeric_limits<int64_t>::max(); }

  // While the result lives, what the cache holds of these tokens is given up after all else: only
  // where a call could not go on without. Computes nothing.
  virtual std::shared_ptr<const void> Hold(
      const std::shared_ptr<const TokenPaths::Tokens>& /*tokens*/,
      const std::string& /*cache_namespace*/) {
    return nullptr;
  }

  // Computes what Score(paths) would, and of each path with nothing to score the path itself with
  // the log-normaliser after it. Returns the number of tokens computed. Whatever else the cache
  // holds may be forgotten for it, but none of these. Calls that come meanwhile wait. Throws as
  // Score; CacheBudgetError, before anything is done, where the cache cannot hold all of it.
  // This and the next two throw std::invalid_argument where nothing is kept between calls.
  virtual int64_t Prime(const TokenPaths& paths, const std::string& cache_namespace);
  // Writes and reads a cache snapshot (cache_snapshot.h) of one namespace; `paths`: only these
  // paths; null: all. Return the number of tokens written, or read and not held before.
  virtual int64_t Save(const std::string& file, const TokenPaths* paths,
                       const std::string& cache_namespace);
  virtual int64_t Load(const std::string& file, const std::string& cache_namespace);

  virtual const ModelDescription& description() const = 0;
  // Adds this scorer's counters to `stats`, those of the model among them. Waits for no call.
  virtual void AddTo(Stats* stats) const = 0;
  // Forgets all paths, or those of one namespace; waits for calls in progress.
  virtual void Clear(const std::string* cache_namespace = nullptr) = 0;

 protected:
  static void CheckPaths(const TokenPaths& paths, const ModelDescription& description);
};

struct PathScorerOptions {
  Mode mode = Mode::kTree;
  int64_t max_batch_tokens = 512;
  int64_t kv_cache_bytes = kAutoCacheBytes;
  // The same for scorers that agree on which tokens begin a word; 0: nobody asks.
  uint64_t word_beginnings = 0;
};

// The tree, the plans, the model and the cache meet here. Calls that wait for each other run as
// one. Throws CacheBudgetError where kv_cache_bytes does not hold two tokens.
std::unique_ptr<PathScorer> CachedPathScorer(std::unique_ptr<CausalLM> model,
                                             PathScorerOptions options);

// Every path on its own, in padded batches.
std::unique_ptr<PathScorer> PlainPathScorer(std::unique_ptr<PlainLM> model,
                                            PathScorerOptions options);

}  // namespace lmfusion
