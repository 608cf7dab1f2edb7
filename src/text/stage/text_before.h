#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lmfusion/casing.h"
#include "lmfusion/history.h"
#include "lmfusion/options.h"
#include "text/stage/text_tokens.h"

namespace lmfusion {

// A history (lmfusion/history.h) as it stands before the texts of a call.
struct TextBefore {
  std::string text;
  int64_t tokens = 0;  // of `text`
  Join join = Join::kAuto;
  // The start token, where there is one, and the tokens of `text`.
  std::shared_ptr<const std::vector<int32_t>> path;

  bool empty() const { return text.empty(); }
  // What stands between it and a text, by the first word of that.
  std::string_view SeparatorTo(std::string_view text_after) const;
};

// The prompt and the utterances that are kept: no more tokens of these than 1,024, nor than `room`
// leaves of positions beside the prompt (0: no limit). `dropped` becomes whether some were dropped.
// Throws TextError, and std::invalid_argument where the prompt does not fit.
TextBefore MakeTextBefore(const History& history, Join join, const Casing& casing,
                          const TextTokens& tokens, int64_t room, TextCall* call, bool* dropped);

}  // namespace lmfusion
