#include "ops/tree_attention.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "ops/tree_attention_blocks.h"

namespace lmfusion {
namespace {

void CheckHeads(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
  TORCH_CHECK(queries.dim() == 3 && keys.dim() == 3 && values.sizes() == keys.sizes(),
              "tree_attention: queries [T, query_heads, head_dim] and keys, values "
              "[T, kv_heads, head_dim] expected, got ",
              queries.sizes(), ", ", keys.sizes(), ", ", values.sizes());
  TORCH_CHECK(keys.size(0) == queries.size(0) && queries.size(2) == keys.size(2),
              "tree_attention: queries ", queries.sizes(), " do not fit keys ", keys.sizes());
  TORCH_CHECK(
      keys.scalar_type() == queries.scalar_type() && values.scalar_type() == queries.scalar_type(),
      "tree_attention: queries, keys and values of one type expected");
}

// The kernels trust their index tensors, which come from our own plans; shapes and types come
// from a model file and are checked.
void CheckBatch(const TreeAttentionArguments& a, const HeadShape& heads) {
  TORCH_CHECK(heads.kv_heads > 0 && heads.query_heads % heads.kv_heads == 0,
              "tree_attention: ", heads.query_heads, " heads of queries do not fit ",
              heads.kv_heads, " of keys");
  TORCH_CHECK(a.kv.dim() == 5 && a.kv.size(1) == 2 && a.kv.size(3) == heads.kv_heads &&
                  a.kv.size(4) == heads.head_dim && a.kv.is_contiguous(),
              "tree_attention: kv ", a.kv.sizes(), " does not fit keys of ", heads.kv_heads,
              " heads of ", heads.head_dim);
  TORCH_CHECK(a.layer >= 0 && a.layer < a.kv.size(0), "tree_attention: layer ", a.layer, " of ",
              a.kv.size(0));
  TORCH_CHECK(a.positions.scalar_type() == at::kLong && a.positions.numel() == heads.tokens &&
                  a.slots.scalar_type() == at::kInt && a.slots.numel() == heads.tokens,
              "tree_attention: positions int64 [T] and slots int32 [T] expected");
  TORCH_CHECK(a.segments.scalar_type() == at::kInt && a.segments.dim() == 2 &&
                  a.segments.size(1) == 5 && a.segment_slots.scalar_type() == at::kInt,
              "tree_attention: segments int32 [S, 5] and segment_slots int32 [K] expected");
  TORCH_CHECK(!a.sinks || a.sinks->numel() == heads.query_heads,
              "tree_attention: one sink a query head expected");
}

at::Tensor DenseHeads(const at::Tensor& tensor) {
  return tensor.dim() == 3 && tensor.stride(2) == 1 ? tensor : tensor.contiguous();
}

at::Tensor TreeAttention(const at::Tensor& queries, const at::Tensor& keys,
                         const at::Tensor& values, const std::optional<at::Tensor>& sinks,
                         at::Tensor& kv, const at::Tensor& positions, const at::Tensor& slots,
                         const at::Tensor& segments, const at::Tensor& segment_slots, int64_t layer,
                         double scale, int64_t window, double softcap) {
  TreeAttentionArguments arguments =
      CheckedTreeAttention(queries, keys, values, sinks, kv, positions, slots, segments,
                           segment_slots, layer, scale, window, softcap);
  if (segment_slots.dim() == 2) return TreeAttentionSerial(arguments);  // query blocks
  TORCH_CHECK(queries.scalar_type() == at::kFloat && kv.scalar_type() == at::kFloat,
              "tree_attention: float32 expected");
  arguments.queries = queries.contiguous();
  arguments.keys = keys.contiguous();
  arguments.values = values.contiguous();
  return TreeAttentionCpu(arguments);
}

}  // namespace

TreeAttentionArguments CheckedTreeBatch(const HeadShape& heads,
                                        const std::optional<at::Tensor>& sinks, at::Tensor& kv,
                                        const at::Tensor& positions, const at::Tensor& slots,
                                        const at::Tensor& segments, const at::Tensor& segment_slots,
                                        int64_t layer, double scale, int64_t window,
                                        double softcap) {
  TreeAttentionArguments arguments;
  arguments.kv = kv;
  arguments.positions = positions.contiguous();
  arguments.slots = slots.contiguous();
  arguments.segments = segments.contiguous();
  arguments.segment_slots = segment_slots.contiguous();
  arguments.layer = layer;
  arguments.scale = scale;
  arguments.window = window;
  arguments.softcap = softcap;
  if (sinks) arguments.sinks = sinks->to(at::kFloat).contiguous();
  CheckBatch(arguments, heads);
  return arguments;
}

TreeAttentionArguments CheckedTreeAttention(const at::Tensor& queries, const at::Tensor& keys,
                                            const at::Tensor& values,
                                            const std::optional<at::Tensor>& sinks, at::Tensor& kv,
                                            const at::Tensor& positions, const at::Tensor& slots,
                                            const at::Tensor& segments,
                                            const at::Tensor& segment_slots, int64_t layer,
                                            double scale, int64_t window, double softcap) {
  CheckHeads(queries, keys, values);
  TreeAttentionArguments arguments =
      CheckedTreeBatch({queries.size(0), queries.size(1), keys.size(1), keys.size(2)}, sinks, kv,
                       positions, slots, segments, segment_slots, layer, scale, window, softcap);
  arguments.queries = DenseHeads(queries);
  arguments.keys = DenseHeads(keys);
  arguments.values = DenseHeads(values);
  return arguments;
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def(
      "tree_attention(Tensor q, Tensor k, Tensor v, Tensor? sinks, Tensor(a!) kv, "
      "Tensor positions, Tensor slots, Tensor segments, Tensor segment_slots, int layer, "
      "float scale, int window, float softcap) -> Tensor");
}

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) { m.impl("tree_attention", &TreeAttention); }

}  // namespace lmfusion
