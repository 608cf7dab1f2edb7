#pragma once

#include <string>
#include <vector>

namespace lmfusion {

// What stands before every text of a call and is not scored: log p(text | prompt, earlier
// utterances). The start token, where there is one, comes before all of it.
//
// The prompt is taken as it is given; each utterance is cased as a whole text of its own, and so is
// the text. What follows each other joins by ScorerOptions::join (join.h), the first word of a text
// (of context and candidate together) standing for all of it; a call's own join is that of its
// candidates alone. Tokens are those of the joined whole. Of the utterances the oldest are
// dropped, whole ones and in steps of 256 tokens, so that no more than 1,024 are left;
// Stats::truncated_contexts counts such calls. Hand over all utterances each time: then calls share
// what was computed for those before. The prompt is never cut. max_context_length counts the text's
// own tokens alone. Where the model has fewer positions than all this needs, a history gets what
// max_context_length leaves of them, half at least, and the text what is left then; a prompt that
// does not fit is refused (std::invalid_argument).
struct History {
  std::string prompt;
  std::vector<std::string> utterances;  // oldest first
};

}  // namespace lmfusion
