#include "text/stage/path_writer.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

// Note [Truncation]
// A token with n text tokens before it is read after the start token and tokens [dropped(n), n) of
// its text: dropped(n) = 0 up to max_context_length, then it grows in steps of a quarter of that,
// so that texts which grow word by word share their prefixes between two moves of the cut. One
// rule for every token, whether it belongs to a whole text, a context or a candidate, keeps the sum
// over the words of a text independent of where it was split. Where the cut moves within the scored
// tokens, the text becomes several paths, one for each place of the cut. The tokens of a history
// (lmfusion/history.h) stand like the start token before all this.

namespace lmfusion {

PathWriter::PathWriter(std::shared_ptr<const TokenPaths::Tokens> context, PathLimits limits,
                       TokenPaths* paths)
    : context_(std::move(context)),
      limits_(limits),
      start_(limits.start_token ? 1 : 0),
      paths_(paths) {}

size_t PathWriter::Dropped(size_t tokens) const {
  const auto limit = static_cast<size_t>(limits_.max_context_length);
  if (tokens <= limit) return 0;
  const size_t step = std::max<size_t>(1, limit / 4);
  return (tokens - limit + step - 1) / step * step;
}

std::shared_ptr<const TokenPaths::Tokens> PathWriter::ContextWithout(Cut cut) {
  if (cut.size() == 0) return context_;
  if (kept_ == nullptr || kept_cut_.from != cut.from || kept_cut_.to != cut.to) {
    const auto first = context_->begin() + start_;
    auto kept = std::make_shared<TokenPaths::Tokens>(context_->begin(), first + cut.from);
    kept->insert(kept->end(), first + cut.to, context_->end());
    kept_ = std::move(kept);
    kept_cut_ = cut;
  }
  return kept_;
}

int64_t PathWriter::Write(Span span) {
  const size_t total = span.shared + span.tail.size();
  // The end of the word is read like one more token.
  const size_t scored_to = total + (span.ends_word ? 1 : 0);
  size_t begin = span.scored_from;
  // A token that spans the end of the history belongs to the text.
  const size_t history = std::min({static_cast<size_t>(limits_.history), span.shared, begin});
  do {
    const size_t dropped = Dropped(begin - history);
    const size_t next_cut = static_cast<size_t>(limits_.max_context_length) + dropped + 1;
    const size_t end = std::min(scored_to, history + next_cut);
    const int64_t too_long = WriteRun(&span, {history, history + dropped}, begin, end);
    if (too_long > 0) return too_long;
    begin = end;
  } while (begin < scored_to);
  return 0;
}

// The path whose tokens [begin, end) are scored, those of the cut left out.
int64_t PathWriter::WriteRun(Span* span, Cut cut, size_t begin, size_t end) {
  const size_t total = span->shared + span->tail.size();
  const size_t tokens = std::min(end, total);
  TokenPaths::Path path;
  path.ends_word = end > total;
  if (cut.size() == 0 || (cut.to <= span->shared && tokens >= span->shared)) {
    path.prefix = ContextWithout(cut);
    path.prefix_size = static_cast<int32_t>(start_ + std::min(span->shared, tokens) - cut.size());
  } else {
    const auto first = context_->begin() + start_;
    path.tail.assign(context_->begin(), first + cut.from);
    if (cut.to < span->shared) path.tail.insert(path.tail.end(), first + cut.to, first + tokens);
  }
  const size_t tail_begin = cut.size() == 0 ? 0 : std::max(cut.to, span->shared) - span->shared;
  const size_t tail_end = std::max(tokens, span->shared) - span->shared;
  if (path.prefix != nullptr && end == total + (span->ends_word ? 1 : 0)) {
    path.tail = std::move(span->tail);
  } else {
    path.tail.insert(path.tail.end(), span->tail.begin() + tail_begin,
                     span->tail.begin() + tail_end);
  }
  if (path.size() == 0) return 0;
  // The first token of all has nothing before it.
  path.scored_begin = static_cast<int32_t>(std::max<size_t>(1, start_ + begin - cut.size()));
  path.alternative = static_cast<int32_t>(paths_->candidate_of.size()) - 1;
  path.sign = span->sign;
  truncated_ = truncated_ || cut.size() > 0;
  const int64_t size = path.size();
  if (limits_.max_path_length > 0 && size > limits_.max_path_length) return size;
  paths_->paths.push_back(std::move(path));
  return 0;
}

void PathWriter::ThrowTooLong(const std::string& what, int64_t size) const {
  throw std::invalid_argument(
      what + " needs a path of " + std::to_string(size) + " tokens, the model takes " +
      std::to_string(limits_.max_path_length) + "; make max_context_length (" +
      std::to_string(limits_.max_context_length) + ") smaller");
}

}  // namespace lmfusion
