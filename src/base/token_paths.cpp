#include "base/token_paths.h"

namespace lmfusion {

TokenPaths::Tokens TokenPaths::Path::tokens() const {
  Tokens all;
  all.reserve(size());
  if (prefix != nullptr) all.assign(prefix->begin(), prefix->begin() + prefix_size);
  all.insert(all.end(), tail.begin(), tail.end());
  return all;
}

uint64_t TokenCount(const TokenPaths& paths) {
  uint64_t count = 0;
  for (const TokenPaths::Path& path : paths.paths) count += path.size();
  return count;
}

}  // namespace lmfusion
