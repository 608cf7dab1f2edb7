#include <cuda_runtime.h>

#include "kernels/attention/tree_attention_dispatch.h"

namespace lmfusion {
namespace {

constexpr int kElementThreads = 256;

__global__ void Scatter(TiledAttention a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index < static_cast<int64_t>(a.tokens) * a.kv_heads * a.head_dim) ScatterElement(a, index);
}

// Grid: key/value heads (fastest: they read the same slots), query tiles, chunks of rows.
template <typename Body>
__global__ void __launch_bounds__(kAttentionThreads) Attend(TiledAttention a, int rows) {
  __shared__ typename Body::Shared shared;
  DeviceThreads<typename Body::State> threads;
  const QueryTile work = a.tiles[blockIdx.y];
  Body::Run(threads, a, work, static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.z) * rows,
            shared);
}

__global__ void Merge(TiledAttention a) {
  const QueryTile work = a.tiles[blockIdx.y];
  if (work.key_begin >= 0) return;
  const int count = Rows(a, work) * a.head_dim;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kElementThreads) {
    MergeElement(a, work, static_cast<int>(blockIdx.x), i);
  }
}

struct Launch {
  template <typename Body>
  void operator()(Body, int rows) const {
    const dim3 grid(a.kv_heads, a.tile_count, RowChunks(a, rows));
    Attend<Body><<<grid, kAttentionThreads, 0, stream>>>(a, rows);
  }
  const TiledAttention& a;
  cudaStream_t stream;
};

}  // namespace

const char* LaunchTreeAttention(const TiledAttention& a, int capability, void* stream_pointer) {
  if (a.tokens == 0 || a.tile_count == 0) return nullptr;
  const auto stream = static_cast<cudaStream_t>(stream_pointer);
  const int64_t elements = static_cast<int64_t>(a.tokens) * a.kv_heads * a.head_dim;
  Scatter<<<static_cast<unsigned>((elements + kElementThreads - 1) / kElementThreads),
            kElementThreads, 0, stream>>>(a);
  const Launch launch{a, stream};
  if (capability >= 80 && FitsMatrixAttention(a)) {
    ForMatrixAttention(a, launch);
  } else {
    ForPlainAttention(a, launch);
  }
  if (a.part_values != nullptr) {
    Merge<<<dim3(a.kv_heads, a.tile_count), kElementThreads, 0, stream>>>(a);
  }
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace lmfusion
