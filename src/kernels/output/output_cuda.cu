#include <cuda_runtime.h>

#include "kernels/output/output_launch.h"

namespace lmfusion {
namespace {

template <typename Body, typename Arguments>
__global__ void __launch_bounds__(kOutputThreads) RunRow(Arguments arguments) {
  __shared__ typename Body::Shared shared;
  DeviceThreads<typename Body::State> threads;
  Body::Run(threads, arguments, static_cast<int64_t>(blockIdx.x), shared);
}

__global__ void Dequantize(QuantizedMatrix matrix) {
  const int64_t pair = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (2 * pair < matrix.rows * matrix.columns) DequantizePair(matrix, pair);
}

const char* LastError() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* LaunchAddTile(const VocabularyTile& tile, void* stream) {
  if (tile.rows == 0) return nullptr;
  RunRow<AddTileBody>
      <<<static_cast<unsigned>(tile.rows), kOutputThreads, 0, static_cast<cudaStream_t>(stream)>>>(
          tile);
  return LastError();
}

const char* LaunchRowLogits(const RowLogits& rows, void* stream) {
  if (rows.rows == 0) return nullptr;
  RunRow<RowLogitBody>
      <<<static_cast<unsigned>(rows.rows), kOutputThreads, 0, static_cast<cudaStream_t>(stream)>>>(
          rows);
  return LastError();
}

const char* LaunchDequantize(const QuantizedMatrix& matrix, void* stream) {
  const int64_t pairs = matrix.rows * matrix.columns / 2;
  if (pairs == 0) return nullptr;
  Dequantize<<<static_cast<unsigned>((pairs + kOutputThreads - 1) / kOutputThreads), kOutputThreads,
               0, static_cast<cudaStream_t>(stream)>>>(matrix);
  return LastError();
}

}  // namespace lmfusion
