#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lmfusion/casing.h"
#include "lmfusion/history.h"
#include "text/stage/text_tokens.h"

namespace lmfusion {

// A history (lmfusion/history.h) as it stands before the texts of a call.
struct TextBefore {
  std::string text;
  int64_t tokens = 0;

  bool empty() const { return text.empty(); }
  // `text_after` behind it, with the space between them.
  std::string Joined(std::string_view text_after) const;
};

// The prompt and the utterances that are kept: no more tokens of these than 1,024, nor than `room`
// leaves of positions beside the prompt (0: no limit). `dropped` becomes whether some were dropped.
// Throws TextError, and std::invalid_argument where the prompt does not fit.
TextBefore MakeTextBefore(const History& history, const Casing& casing, const TextTokens& tokens,
                          int64_t room, uint64_t* bytes_tokenized, bool* dropped);

}  // namespace lmfusion
