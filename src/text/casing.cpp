#include "lmfusion/casing.h"

namespace lmfusion {

bool NeedsSpace(std::string_view context, std::string_view word) {
  return !context.empty() && context.back() != ' ' && !word.empty() && word.front() != ' ';
}

}  // namespace lmfusion
