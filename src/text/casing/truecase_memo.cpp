#include "text/casing/truecase_memo.h"

namespace lmfusion {

size_t TruecasePrefix::bytes() const {
  size_t total = 256 + source.size() + settled.size() + previous.size();
  for (const std::string& word : words) total += 2 * (sizeof(std::string) + word.size());
  return total;
}

}  // namespace lmfusion
