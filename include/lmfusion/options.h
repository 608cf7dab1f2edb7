#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "lmfusion/casing.h"
#include "lmfusion/tokenizer.h"

namespace lmfusion {

// How a scorer computes; scores are the same in every mode.
enum class Mode {
  kTree,      // every distinct prefix once, whoever asks and whenever
  kGrouped,   // one prefill per distinct cased context and call, then one pass per word
  kUncached,  // every text on its own
};
Mode ModeByName(const std::string& name);  // "tree", "grouped", "uncached"; std::invalid_argument
const char* Name(Mode mode);

// Where a word ends.
enum class Boundary {
  kPlain,  // a word is its tokens
  kWord,   // a word is its tokens and the end of the word, see docs/boundaries.md
};
Boundary BoundaryByName(const std::string& name);  // "plain", "word"; std::invalid_argument
const char* Name(Boundary boundary);

struct ScorerOptions {
  // score = weight * sum(log p) + word_insertion_bonus, per candidate word.
  double weight = 0.3;
  double word_insertion_bonus = 0.0;
  // How aggregate_homophone_scores() joins the scores of words that sound alike: "max" or
  // "logsumexp".
  std::string homophone_aggregation = "max";

  std::string device = "cpu";       // "cpu", "cuda", "cuda:1"
  std::string compute = "float32";  // see docs/speed.md
  // What keys and values are kept in on a device: "float32", "bfloat16", "float16", "float8", or
  // "auto" for the type of `compute` (bfloat16 for int8 and int4). docs/memory.md
  std::string kv_dtype = "auto";
  Mode mode = Mode::kTree;
  Boundary boundary = Boundary::kPlain;

  // The token before every text: "auto" (the model's rule, docs/boundaries.md), "tokenizer" (only
  // if the tokenizer itself adds one), "none", or a token as its vocabulary writes it.
  std::string bos = "auto";
  // Tokens of context that are kept, without the start token; older ones are dropped in blocks.
  int64_t max_context_length = 512;
  // Tokens of one forward pass at most.
  int64_t max_batch_tokens = 512;
  // Hard limit, bytes, of what is kept: keys, values, hidden states and the token tree.
  // -1 ("auto"): 1 GiB on the CPU, half of the free memory on a device.
  int64_t kv_cache_bytes = -1;

  // "none", "sentence", "truecase", "truecase-compat" or "variants" (docs/casing.md). The two
  // truecasings read the bundle's truecaser or `truecaser`.
  std::string casing = "none";
  std::string truecaser;  // path of a truecaser file; empty: the one in the bundle
  std::shared_ptr<const Casing> casing_object;  // in place of `casing`, where given
  std::shared_ptr<const Tokenizer> tokenizer;   // in place of the bundle's, where given

  // Throws std::invalid_argument, naming the field, its value and what is allowed.
  void Validate() const;
  std::string ToString() const;
};

}  // namespace lmfusion
