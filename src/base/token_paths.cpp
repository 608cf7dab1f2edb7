#include "base/token_paths.h"

#include <algorithm>

namespace lmfusion {

TokenPaths::Tokens TokenPaths::Path::tokens() const {
  Tokens all;
  all.reserve(size());
  if (prefix != nullptr) all.assign(prefix->begin(), prefix->begin() + prefix_size);
  all.insert(all.end(), tail.begin(), tail.end());
  return all;
}

TokenPaths::Path TokenPaths::Path::First(int32_t size, int32_t scored_begin) const {
  Path first = *this;
  first.prefix_size = std::min(prefix_size, size);
  first.tail.resize(size - first.prefix_size);
  first.scored_begin = scored_begin;
  first.ends_word = ends_word && size == this->size();
  return first;
}

uint64_t TokenCount(const TokenPaths& paths) {
  uint64_t count = 0;
  for (const TokenPaths::Path& path : paths.paths) count += path.size();
  return count;
}

}  // namespace lmfusion
