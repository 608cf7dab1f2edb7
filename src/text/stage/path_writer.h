#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/token_paths.h"

namespace lmfusion {

struct PathLimits {
  bool start_token = false;  // texts begin with a start token
  int64_t history = 0;       // tokens after it that are never dropped
  int64_t max_context_length = 512;
  int64_t max_path_length = 0;  // 0: none
};

// Writes the paths of the texts that begin with (parts of) one context; see Note [Truncation].
// Positions count the tokens of a text, the start token left out. Not thread safe.
class PathWriter {
 public:
  // `context`: the tokens of the context, the start token first where there is one.
  PathWriter(std::shared_ptr<const TokenPaths::Tokens> context, PathLimits limits,
             TokenPaths* paths);

  struct Span {
    size_t shared = 0;        // the text is context[0, shared) ...
    TokenPaths::Tokens tail;  // ... and these
    size_t scored_from = 0;   // tokens from this position on are scored
    float sign = 1;
    bool ends_word = false;
  };
  // Adds the paths of a text to the last alternative. Throws std::invalid_argument, beginning with
  // `what` (text or function to it), where one is longer than the model takes.
  template <class What>
  void Write(Span span, const What& what) {
    const int64_t too_long = Write(std::move(span));
    if (too_long > 0) ThrowTooLong(what(), too_long);
  }

  size_t context_size() const { return context_->size() - start_; }
  const int32_t* context_tokens() const { return context_->data() + start_; }
  bool truncated() const { return truncated_; }

 private:
  // Which tokens of a text are left out: [from, to).
  struct Cut {
    size_t from = 0, to = 0;
    size_t size() const { return to - from; }
  };
  int64_t Write(Span span);  // 0, or the size of a path that is too long
  int64_t WriteRun(Span* span, Cut cut, size_t begin, size_t end);
  [[noreturn]] void ThrowTooLong(const std::string& what, int64_t size) const;
  size_t Dropped(size_t tokens) const;
  std::shared_ptr<const TokenPaths::Tokens> ContextWithout(Cut cut);

  const std::shared_ptr<const TokenPaths::Tokens> context_;
  const PathLimits limits_;
  const size_t start_;
  TokenPaths* const paths_;
  // The context with the tokens of `kept_cut_` left out; null: not made yet.
  std::shared_ptr<const TokenPaths::Tokens> kept_;
  Cut kept_cut_;
  bool truncated_ = false;
};

}  // namespace lmfusion
