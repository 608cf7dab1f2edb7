#pragma once

// The declarations of flashlight-text 0.0.7's LexiconDecoder.h that docs/adapters.md shows a use
// of: enough to compile it where the package is not installed.

#include <memory>
#include <vector>

#include "flashlight/lib/text/decoder/lm/LM.h"

namespace fl {
namespace lib {
namespace text {

struct LexiconDecoderOptions;
class Trie;

class LexiconDecoder {
 public:
  LexiconDecoder(LexiconDecoderOptions options, const std::shared_ptr<Trie>& lexicon,
                 const std::shared_ptr<LM>& lm, const int sil, const int blank, const int unk,
                 const std::vector<float>& transitions, const bool isLmToken);
};

struct LexiconDecoderOptions {};

}  // namespace text
}  // namespace lib
}  // namespace fl
