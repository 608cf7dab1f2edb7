#pragma once

#include <cstdint>

namespace lmfusion {

// Note [Tree attention]
// A packed batch holds T tokens of many texts, ordered depth first, so that the tokens below any
// node of the token tree are a range. The nodes that these tokens can see (their ancestors and
// themselves) are listed once each, as segments: chains of nodes that the same range sees.
// A token at position t sees a key at position p of its segments where p <= t and, in a layer with
// a sliding window, t - p < window. The first rule matters only where a chain holds tokens of the
// batch itself: those come before some tokens of their own range.
// Every shared ancestor is thus named once, whatever the number of tokens that see it.
struct Segment {
  int32_t key_begin, key_end;      // the nodes' slots are segment_slots[key_begin, key_end)
  int32_t token_begin, token_end;  // the tokens of this batch that lie below (or in) the chain
  int32_t first_position;          // of the first node; the others follow one by one
};
static_assert(sizeof(Segment) == 5 * sizeof(int32_t), "operators take segments as int32 [S, 5]");

}  // namespace lmfusion
