#include "text/stage/text_before.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "lmfusion/errors.h"
#include "lmfusion/join.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

constexpr int64_t kHistoryTokens = 1024;  // of utterances at most

void CheckUtf8In(const std::string& text, const std::string& where) {
  try {
    CheckUtf8(text);
  } catch (const TextError& error) {
    throw TextError(where + ": " + error.what());
  }
}

// The first utterance that is kept, so that `most` tokens are left at most. What is dropped grows
// in steps, so that calls with one utterance more each share their beginning.
size_t FirstKept(const std::vector<int64_t>& sizes, int64_t most) {
  int64_t tokens = 0;
  for (const int64_t size : sizes) tokens += size;
  if (tokens <= most) return 0;
  const int64_t step = std::max<int64_t>(1, most / 4);
  int64_t to_drop = (tokens - most + step - 1) / step * step;
  size_t first = 0;
  for (; first < sizes.size() && to_drop > 0; ++first) to_drop -= sizes[first];
  return first;
}

}  // namespace

std::string_view TextBefore::SeparatorTo(std::string_view text_after) const {
  size_t end = 0;
  while (end < text_after.size()) {
    const Utf8Character c = CharacterAt(text_after, end);
    if (IsPythonSpace(c.value)) break;
    end += c.bytes;
  }
  // White space at the beginning is for Separator to see.
  return Separator(text, end == 0 ? text_after : text_after.substr(0, end), join);
}

TextBefore MakeTextBefore(const History& history, Join join, const Casing& casing,
                          const TextTokens& tokens, int64_t room, TextCall* call, bool* dropped) {
  const int64_t start = static_cast<int64_t>(tokens.Find("", call)->tokens->size());
  const auto size_of = [&](const std::string& text) {
    return static_cast<int64_t>(tokens.Find(text, call)->tokens->size()) - start;
  };
  CheckUtf8In(history.prompt, "prompt");
  TextBefore before{history.prompt, size_of(history.prompt), join, nullptr};
  if (room > 0 && before.tokens > room) {
    throw std::invalid_argument("prompt has " + std::to_string(before.tokens) +
                                " tokens, and the model's positions leave " + std::to_string(room) +
                                " beside a text; make it or max_context_length smaller");
  }
  std::vector<std::string> utterances;
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < history.utterances.size(); ++i) {
    const std::string where = "context[" + std::to_string(i) + "]";
    CheckUtf8In(history.utterances[i], where);
    utterances.push_back(casing.Apply("", history.utterances[i]).text);
    CheckUtf8In(utterances.back(), where);
    sizes.push_back(size_of(utterances.back()));
  }
  const int64_t left = room > 0 ? room - before.tokens : kHistoryTokens;
  const size_t kept = FirstKept(sizes, std::min(kHistoryTokens, left));
  *dropped = kept > 0;
  for (size_t i = kept; i < utterances.size(); ++i) {
    before.text.append(before.SeparatorTo(utterances[i])).append(utterances[i]);
  }
  before.path = tokens.Find(before.text, call)->tokens;
  before.tokens = static_cast<int64_t>(before.path->size()) - start;
  return before;
}

}  // namespace lmfusion
