#pragma once

#include "kernels/output/output_kernel.h"

namespace lmfusion {

// Each queues one kernel on a cudaStream_t; null, or the text of the CUDA error.
const char* LaunchAddTile(const VocabularyTile& tile, void* stream);
const char* LaunchRowLogits(const RowLogits& rows, void* stream);
const char* LaunchDequantize(const QuantizedMatrix& matrix, void* stream);

}  // namespace lmfusion
