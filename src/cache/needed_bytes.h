#pragma once

#include <cstdint>

#include "base/token_paths.h"
#include "tree/token_tree.h"

namespace lmfusion {

// Bytes of slots and nodes that a cache needs to hold the paths of a call that primes; with those
// of `held`, the tree that it has below `root`, for last tokens that need no slot and have one.
// held: may be null.
int64_t NeededBytes(const TokenPaths& paths, int64_t slot_bytes, const TokenTree* held = nullptr,
                    NodeId root = kNoNode);

}  // namespace lmfusion
