#pragma once

#include "kernels/attention/tree_attention_launch.h"
#include "kernels/attention/tree_attention_mma.h"

namespace lmfusion {

template <template <int, typename> class Body, typename Kv, typename Run>
void ForPlainBody(int head_dim, const Run& run) {
  // NOLINTBEGIN(bugprone-branch-clone): the branches differ in a type, which is the size
  if (head_dim <= 64) {
    run(Body<64, Kv>{}, PlainShape<64>::kRows);
  } else if (head_dim <= 128) {
    run(Body<128, Kv>{}, PlainShape<128>::kRows);
  } else if (head_dim <= 256) {
    run(Body<256, Kv>{}, PlainShape<256>::kRows);
  } else {
    run(Body<512, Kv>{}, PlainShape<512>::kRows);
  }
  // NOLINTEND(bugprone-branch-clone)
}

// Calls run(body, rows a thread block) with the body of plain arithmetic that fits.
template <typename Run>
void ForPlainAttention(const TiledAttention& a, const Run& run) {
  switch (a.pool) {
    case NumberType::kFloat32: return ForPlainBody<PlainAttention, float>(a.head_dim, run);
    case NumberType::kFloat16: return ForPlainBody<PlainAttention, Float16>(a.head_dim, run);
    case NumberType::kBFloat16: return ForPlainBody<PlainAttention, BFloat16>(a.head_dim, run);
    case NumberType::kFloat8: return ForPlainBody<PlainAttention, Float8>(a.head_dim, run);
  }
}

template <typename Kv, typename Number, typename Run>
void ForMatrixBody(int head_dim, const Run& run) {
  switch (head_dim) {
    case 64: return run(MatrixAttention<64, Kv, Number>{}, kTileRows);
    case 80: return run(MatrixAttention<80, Kv, Number>{}, kTileRows);
    case 96: return run(MatrixAttention<96, Kv, Number>{}, kTileRows);
    case 128: return run(MatrixAttention<128, Kv, Number>{}, kTileRows);
    case 256: return run(MatrixAttention<256, Kv, Number>{}, kTileRows);
  }
}

// The same with matrix instructions, for what FitsMatrixAttention.
template <typename Run>
void ForMatrixAttention(const TiledAttention& a, const Run& run) {
  switch (a.pool) {
    case NumberType::kFloat32: return;
    case NumberType::kFloat16: return ForMatrixBody<Float16, Float16>(a.head_dim, run);
    case NumberType::kBFloat16: return ForMatrixBody<BFloat16, BFloat16>(a.head_dim, run);
    case NumberType::kFloat8: return ForMatrixBody<Float8, BFloat16>(a.head_dim, run);
  }
}

// Thread blocks that the rows of a query tile take.
inline int RowChunks(const TiledAttention& a, int rows) {
  return (PartRows(a.query_heads / a.kv_heads) + rows - 1) / rows;
}

}  // namespace lmfusion
