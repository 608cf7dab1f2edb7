#pragma once

#include <cstdint>

#include "kernels/attention/tree_attention_kernel.h"

namespace lmfusion {

// Bytes of partial results that LaunchTreeAttention needs behind part_values and part_stats
// together; 0 where no keys are split.
int64_t PartBytes(const TiledAttention& attention);

// Points part_values and part_stats into `memory`.
void SetParts(void* memory, TiledAttention* attention);

// Writes keys and values to their slots, attends, merges. Nothing is waited for. `stream` is a
// cudaStream_t; matrix instructions are used where the device (compute capability 10 * major +
// minor) and the types have them. Returns null, or the text of the CUDA error.
const char* LaunchTreeAttention(const TiledAttention& attention, int capability, void* stream);

// The same on the host, thread block by thread block: what the kernels' arithmetic gives.
void RunTreeAttentionSerially(const TiledAttention& attention, bool matrix);

// Whether matrix instructions can serve these shapes and types.
bool FitsMatrixAttention(const TiledAttention& attention);

}  // namespace lmfusion
