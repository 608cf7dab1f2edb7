#include "ops/tree_attention.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "ops/pooled_floats.h"
#include "ops/tree_attention_tiles.h"

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
void CheckBatch(const TreeArguments& a, const HeadShape& heads) {
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

HeadShape ShapeOf(const TreeAttentionArguments& a) {
  return {a.queries.size(0), a.queries.size(1), a.keys.size(1), a.keys.size(2)};
}

// The kernels of the CPU for segments; for query tiles those of a device, one after another.
at::Tensor TreeAttentionOnHost(const TreeAttentionArguments& arguments) {
  return arguments.tree.segment_slots.dim() == 2 ? TreeAttentionSerial(arguments)
                                                 : TreeAttentionCpu(arguments);
}

}  // namespace

TreeArguments Checked(TreeArguments tree, const HeadShape& heads) {
  tree.positions = tree.positions.contiguous();
  tree.slots = tree.slots.contiguous();
  tree.segments = tree.segments.contiguous();
  tree.segment_slots = tree.segment_slots.contiguous();
  if (tree.sinks) tree.sinks = tree.sinks->to(at::kFloat).contiguous();
  CheckBatch(tree, heads);
  return tree;
}

TreeAttentionArguments Checked(const TreeAttentionArguments& arguments) {
  CheckHeads(arguments.queries, arguments.keys, arguments.values);
  return {DenseHeads(arguments.queries), DenseHeads(arguments.keys), DenseHeads(arguments.values),
          Checked(arguments.tree, ShapeOf(arguments))};
}

TreeAttentionBatch BatchOf(const TreeArguments& tree, const HeadShape& heads) {
  TORCH_CHECK(tree.kv.scalar_type() == at::kFloat, "tree_attention: float32 expected");
  TreeAttentionBatch batch;
  batch.sinks = tree.sinks ? tree.sinks->const_data_ptr<float>() : nullptr;
  batch.pool_keys = tree.kv.data_ptr<float>() + tree.layer * tree.kv.stride(0);
  batch.pool_values = batch.pool_keys + tree.kv.stride(1);
  batch.positions = tree.positions.const_data_ptr<int64_t>();
  batch.slots = tree.slots.const_data_ptr<int32_t>();
  batch.segments = reinterpret_cast<const Segment*>(tree.segments.const_data_ptr<int32_t>());
  batch.segment_slots = tree.segment_slots.const_data_ptr<int32_t>();
  batch.segment_count = tree.segments.size(0);
  batch.tokens = heads.tokens;
  batch.query_heads = heads.query_heads;
  batch.kv_heads = heads.kv_heads;
  batch.head_dim = heads.head_dim;
  batch.scale = static_cast<float>(tree.scale);
  batch.window = tree.window;
  batch.softcap = static_cast<float>(tree.softcap);
  return batch;
}

at::Tensor TreeAttentionCpu(const TreeAttentionArguments& arguments) {
  TORCH_CHECK(arguments.queries.scalar_type() == at::kFloat, "tree_attention: float32 expected");
  TreeAttentionBatch batch = BatchOf(arguments.tree, ShapeOf(arguments));
  const at::Tensor queries = arguments.queries.contiguous();
  const at::Tensor keys = arguments.keys.contiguous(), values = arguments.values.contiguous();
  at::Tensor output = EmptyFloats(queries.sizes());
  batch.queries = queries.const_data_ptr<float>();
  Scatter(batch, keys.const_data_ptr<float>(), values.const_data_ptr<float>());
  Attend(batch, output.data_ptr<float>());
  return output;
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def(
      "tree_attention(Tensor q, Tensor k, Tensor v, Tensor? sinks, Tensor(a!) kv, "
      "Tensor positions, Tensor slots, Tensor segments, Tensor segment_slots, int layer, "
      "float scale, int window, float softcap) -> Tensor");
}

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) {
  m.impl("tree_attention", &TreeAttentionOperator<&TreeAttentionOnHost>);
}

}  // namespace lmfusion
