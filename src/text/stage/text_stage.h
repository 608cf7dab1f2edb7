#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/token_paths.h"
#include "lmfusion/casing.h"
#include "lmfusion/history.h"
#include "lmfusion/options.h"
#include "lmfusion/tokenizer.h"
#include "text/stage/text_before.h"
#include "text/stage/text_tokens.h"

namespace lmfusion {

struct TextStageOptions {
  int32_t start_token = -1;          // before every text; -1: none
  int32_t end_token = -1;            // -1: none
  int64_t max_context_length = 512;  // tokens
  int64_t max_path_length = 0;       // tokens of a path that the model takes; 0: no limit
  Boundary boundary = Boundary::kPlain;
  Join join = Join::kAuto;  // of a history and of what follows it
};

// Strings to token paths: joins, cases, tokenizes, cuts. Remembers the tokens of the contexts it
// saw last, so that a call costs in proportion to its new words. Thread safe.
class TextStage {
 public:
  TextStage(std::shared_ptr<const Tokenizer> tokenizer, std::shared_ptr<const Casing> casing,
            TextStageOptions options);
  ~TextStage();

  // What of a history stands before the texts of a call.
  TextBefore Before(const History& history, TextCall* call) const;

  // One candidate per word, in order. Shapes are checked by the caller.
  TokenPaths Continuations(const std::vector<std::string>& contexts,
                           const std::vector<std::vector<std::string>>& candidate_words, Join join,
                           TextCall* call, const TextBefore& before = {}) const;
  // One candidate per text; whole texts are cased too. Throws std::invalid_argument for `eos` and
  // the ending "" where the model has no end token.
  TokenPaths Texts(const std::vector<std::string>& texts, bool eos, TextCall* call,
                   const TextBefore& before = {}) const;
  // texts.size() * endings.size() candidates: the text is cased as a whole text, the ending follows
  // it as given, without a space; the ending "" is the end token.
  TokenPaths Endings(const std::vector<std::string>& texts, const std::vector<std::string>& endings,
                     TextCall* call, const TextBefore& before = {}) const;
  // Forgets the contexts of a namespace; null: all. What a casing remembers is its own.
  void Forget(const std::string* cache_namespace) const;
  // For people: the cased text of one candidate, and all its forms, in the order of the
  // alternatives that Continuations writes.
  CasedText Cased(const std::string& context, const std::string& word, Join join) const;
  std::vector<CasedText> Alternatives(const std::string& context, const std::string& word,
                                      Join join) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lmfusion
