#pragma once

#include <cstdint>
#include <vector>

#include "base/segment.h"
#include "tree/node_numbers.h"
#include "tree/pinned_paths.h"
#include "tree/token_tree.h"

namespace lmfusion {

// One packed forward pass: T tokens of any number of texts, without padding. What the numbers of
// a segment mean is told in Note [Tree attention] (base/segment.h).
struct BatchPlan {
  using Segment = lmfusion::Segment;
  std::vector<int64_t> tokens;        // [T]
  std::vector<int64_t> positions;     // [T]
  std::vector<SlotId> slots;          // [T], where each token's keys and values go
  std::vector<Segment> segments;      // [S]
  std::vector<SlotId> segment_slots;  // [K], every visible node once

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
};

// The indices of the nodes that have a slot but are not computed, depth first.
std::vector<int32_t> MissingDepthFirst(const TokenTree& tree, const PinnedPaths& paths);

// The plan that computes the nodes of missing[begin, end), a part of what MissingDepthFirst
// returned. What comes before that part is computed when the plan runs. It takes a step for each
// node of the plan, whatever else the tree and the paths hold; `visible_index` is memory for one
// plan after another of the same paths.
BatchPlan PlanBatch(const TokenTree& tree, const PinnedPaths& paths,
                    const std::vector<int32_t>& missing, size_t begin, size_t end,
                    NodeNumbers& visible_index);

}  // namespace lmfusion
