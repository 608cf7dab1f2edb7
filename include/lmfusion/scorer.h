#pragma once

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lmfusion/best.h"
#include "lmfusion/history.h"
#include "lmfusion/options.h"
#include "lmfusion/stats.h"

namespace lmfusion {

// One candidate, token by token.
struct Explanation {
  struct Token {
    int32_t id = -1;
    std::string piece;   // as the vocabulary writes it; empty for a tokenizer without pieces
    float log_prob = 0;  // nats; NaN for tokens that are not scored (the context)
    bool scored = false;
    bool reused = false;  // the cache held it before this call
  };
  // A form of the candidate: all casings but "variants" have one (casing.h, Alternatives).
  struct Form {
    std::string text;
    double log_prob = 0;  // nats
  };
  std::string text;           // context and word, joined and cased: the likeliest form
  size_t context_bytes = 0;   // text[0, context_bytes) is the context
  std::vector<Token> tokens;  // of the whole text, the start token first
  // Where the tokens of the context alone are not the first tokens of the text (a token spans the
  // join): the context's own tokens from the first that differs, whose log-probabilities are
  // subtracted. See docs/boundaries.md.
  std::vector<Token> subtracted;
  double word_end_log_prob = 0;    // boundary "word": log p(the word ends); else 0
  double word_begin_log_prob = 0;  // boundary "word": log p(the context's word ends); else 0
  // Nats, of the form shown: scored tokens - subtracted tokens + word_end - word_begin.
  double log_prob = 0;
  std::vector<Form> forms;        // all, in the order of the casing
  double candidate_log_prob = 0;  // nats; logsumexp over the forms, what log_probs() gives
  double score = 0;               // weight * candidate_log_prob + word_insertion_bonus
  uint64_t tokens_computed = 0;   // by this call, whatever other threads do
};

// What one call may ask for besides its scores.
struct CallOptions {
  // Calls of different namespaces share nothing, so none can be timed by another.
  std::string cache_namespace;
  std::optional<Join> join;  // in place of the option
  // [contexts][candidates] or empty, in the unit of the call's result. A candidate that is below
  // its floor gets -infinity and is computed no further than it takes to know (mode "tree").
  std::vector<std::vector<double>> floors;
  // Seconds from the call on; infinity: none. No work is begun later, so with 0 or less none at
  // all; candidates not scored by then get NaN. A forward pass that has begun is finished, so a
  // call may be late by one context. NaN is refused (std::invalid_argument).
  double deadline = std::numeric_limits<double>::infinity();
  // Before every context.
  History history;
};

// How likely words and texts are under a causal language model. All log-probabilities are natural
// logarithms (nats). Two texts that share a prefix share its computation, within a call and
// between calls, up to kv_cache_bytes; what is kept never changes a score.
//
// After an exception, std::bad_alloc included, the scorer works on and its cache holds only what is
// right.
//
// Threads and processes. Any number of threads may call at once, but for the set_ methods, moves
// and destruction; calls that wait are packed together. stats() and reset_stats() wait for no
// forward pass. A process that is forked before the first call or while no call is in progress may
// go on with its copy of the scorer. In one that is forked beside a call of another thread every
// method of that scorer throws Error, and none hangs: make a new scorer there. The parent is not
// concerned. A scorer that was moved from throws Error from then on; states (state.h) keep the
// model that they were made of.
//
// Errors of all scoring methods: TextError (not UTF-8), std::invalid_argument (shapes, names),
// CacheBudgetError (one text larger than the cache), NumericalError (the model gave NaN).
class LMFusionScorer {
 public:
  // Reads a model file (docs/export.md), or any TorchScript causal language model
  // (ids [B, T], mask [B, T] -> logits [B, T, vocabulary]), which is scored without a cache.
  // Throws ModelFileError, TokenizerError, std::invalid_argument.
  explicit LMFusionScorer(const std::string& model_path, ScorerOptions options = {});
  ~LMFusionScorer();
  LMFusionScorer(LMFusionScorer&&) noexcept;
  LMFusionScorer& operator=(LMFusionScorer&&) noexcept;

  const ScorerOptions& options() const;

  // [contexts][candidates] of weight * log p(word | context) + word_insertion_bonus.
  // contexts.size() == candidate_words.size(); lists may be empty, contexts may repeat.
  // cache_namespace: calls of different namespaces share nothing, so none can be timed by another.
  std::vector<std::vector<double>> score_continuations(
      const std::vector<std::string>& contexts,
      const std::vector<std::vector<std::string>>& candidate_words,
      const std::string& cache_namespace = "");
  // Floors need a weight above 0 (std::invalid_argument).
  std::vector<std::vector<double>> score_continuations(
      const std::vector<std::string>& contexts,
      const std::vector<std::vector<std::string>>& candidate_words, const CallOptions& call);

  // The same without weight and bonus: log p(word | context), nats.
  std::vector<std::vector<double>> log_probs(
      const std::vector<std::string>& contexts,
      const std::vector<std::vector<std::string>>& candidate_words,
      const std::string& cache_namespace = "");
  std::vector<std::vector<double>> log_probs(
      const std::vector<std::string>& contexts,
      const std::vector<std::vector<std::string>>& candidate_words, const CallOptions& call);

  // [texts] of log p(text), nats, unweighted: the sum over all tokens after the start token (and
  // of the end-of-text token, where `eos`); after a history, of the tokens after that.
  std::vector<double> score_texts(const std::vector<std::string>& texts, bool eos = false,
                                  const std::string& cache_namespace = "",
                                  const History& history = {});

  // Of each list the n best texts by base score + weight * log p(text) + word_insertion_bonus *
  // words (split at white space), where log p is that of score_texts: exact, the order of equal
  // totals that of the list, and computed no further than it takes to know. base_scores: one number
  // a text, -infinity too. Throws std::invalid_argument for other shapes, NaN and +infinity, n
  // below 1, and a gap or `within` below 0.
  std::vector<BestList> best(const std::vector<std::vector<std::string>>& lists,
                             const std::vector<std::vector<double>>& base_scores,
                             const BestOptions& options = {});

  // [texts][tokens] with the log p of each token after the start token, nats; they sum to
  // score_texts(texts) under the boundary policy "plain". Needs a tokenizer's pieces for `piece`.
  std::vector<std::vector<Explanation::Token>> token_log_probs(
      const std::vector<std::string>& texts, const std::string& cache_namespace = "");

  // [texts] of log p(text), nats, unweighted, of texts that are cased already: the options' casing
  // is left out. length_normalize: divided by the number of scored tokens (0 where there is none).
  std::vector<double> score_texts_batch(const std::vector<std::string>& texts,
                                        bool length_normalize = false,
                                        const std::string& cache_namespace = "");

  // [texts][endings] of log p(ending | text), nats, unweighted; an ending follows its text without
  // a space. The empty ending stands for the end-of-text token.
  std::vector<std::vector<double>> score_endings(const std::vector<std::string>& texts,
                                                 const std::vector<std::string>& endings,
                                                 const std::string& cache_namespace = "",
                                                 const History& history = {});

  // [paths] of the log p of each token from scored_begin[path] on (at least 1), nats: the layer
  // below texts. Ids as the model counts them; nothing is put before them.
  std::vector<std::vector<float>> score_token_paths(const std::vector<std::vector<int32_t>>& paths,
                                                    const std::vector<int32_t>& scored_begin,
                                                    const std::string& cache_namespace = "");

  // Warm start (docs/warm_start.md). All need mode "tree" and a model with tree attention
  // (std::invalid_argument).
  //
  // Computes and keeps contexts, with all that candidates after them need of them, and the words of
  // `vocabulary` as candidates after each context of `after`. Returns the number of tokens
  // computed. Throws CacheBudgetError, before anything is computed, where kv_cache_bytes does not
  // hold all of it at once; the text says what would. Calls of other threads wait meanwhile.
  int64_t prime(const std::vector<std::string>& contexts,
                const std::vector<std::string>& vocabulary = {},
                const std::vector<std::string>& after = {""},
                const std::string& cache_namespace = "", std::optional<Join> join = {});
  // Writes what the cache holds of one namespace to a file, or only what it holds of `contexts`
  // (where there are any). Returns the number of tokens written. Throws CacheFileError.
  int64_t save_cache(const std::string& path, const std::vector<std::string>& contexts = {},
                     const std::string& cache_namespace = "");
  // Adds what a file holds to the cache, in a scorer of the same model file, `compute` and
  // `kv_dtype`. Returns the number of tokens that were not there. Throws CacheFileError (damaged,
  // another model), CacheBudgetError (larger than kv_cache_bytes); then nothing is loaded.
  int64_t load_cache(const std::string& path, const std::string& cache_namespace = "");

  Explanation explain(const std::string& context, const std::string& word,
                      const std::string& cache_namespace = "", std::optional<Join> join = {});

  // Scores candidates, and scores them again without the cache. Returns the largest difference of a
  // token's log-probability, nats: of the rounding of sums, some 1e-5 in float32. Counted in stats,
  // as what the option selfcheck_every does.
  double selfcheck(const std::vector<std::string>& contexts,
                   const std::vector<std::vector<std::string>>& candidate_words,
                   const std::string& cache_namespace = "");

  // One score per group of words that sound alike, by options().homophone_aggregation.
  double aggregate_homophone_scores(const std::vector<double>& scores) const;

  // Change how scores are joined; std::invalid_argument as for ScorerOptions. Not while another
  // thread scores.
  void set_weight(double weight);
  void set_word_insertion_bonus(double bonus);
  void set_homophone_aggregation(const std::string& aggregation);

  Stats stats() const;
  void reset_stats();
  // Forgets everything, or all of one namespace. Waits for calls in progress.
  void clear_cache();
  void clear_cache(const std::string& cache_namespace);

  // The description of the model, JSON (docs/export.md lists the fields).
  const std::string& model_description() const;
  const Tokenizer& tokenizer() const;

  struct Impl;

 private:
  friend class StateScorer;

  explicit LMFusionScorer(std::shared_ptr<Impl> impl);
  LMFusionScorer Sharing() const;  // another one of the same model and cache
  Impl& impl() const;              // throws Error where there is none: moved from
  template <typename T>
  void Set(T ScorerOptions::*member, T value);

  std::shared_ptr<Impl> impl_;
};

}  // namespace lmfusion
