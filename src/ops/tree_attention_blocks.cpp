#include "ops/tree_attention_blocks.h"

#include <ATen/ATen.h>

namespace lmfusion {
namespace {

NumberType TypeOf(const at::Tensor& tensor, const char* what) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return NumberType::kFloat32;
    case at::kHalf: return NumberType::kFloat16;
    case at::kBFloat16: return NumberType::kBFloat16;
    case at::kFloat8_e4m3fn: return NumberType::kFloat8;
    default:
      TORCH_CHECK(false, "tree_attention: ", what, " of type ", tensor.scalar_type(),
                  "; float32, float16, bfloat16 or float8_e4m3fn expected");
  }
}

HeadsView ViewOf(const at::Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1)};
}

}  // namespace

BlockAttention BlocksOf(const TreeAttentionArguments& a, const at::Tensor& output,
                        at::Tensor* parts) {
  TORCH_CHECK(a.segment_slots.dim() == 2 && a.segment_slots.size(1) == 4 &&
                  a.segment_slots.scalar_type() == at::kInt && a.segment_slots.is_contiguous() &&
                  a.segments.is_contiguous(),
              "tree_attention: keys of query blocks int32 [K, 4] expected");
  TORCH_CHECK(a.keys.size(2) <= 512, "tree_attention: heads of ", a.keys.size(2),
              "; up to 512 expected");
  BlockAttention b;
  b.queries = ViewOf(a.queries);
  b.keys = ViewOf(a.keys);
  b.values = ViewOf(a.values);
  b.activation = TypeOf(a.queries, "queries");
  b.sinks = a.sinks ? a.sinks->const_data_ptr<float>() : nullptr;
  const int64_t plane = a.kv.stride(1) * a.kv.element_size();
  b.pool_keys = static_cast<char*>(a.kv.data_ptr()) + a.layer * 2 * plane;
  b.pool_values = static_cast<char*>(b.pool_keys) + plane;
  b.pool = TypeOf(a.kv, "keys and values");
  b.positions = a.positions.const_data_ptr<int64_t>();
  b.slots = a.slots.const_data_ptr<int32_t>();
  b.blocks = reinterpret_cast<const QueryBlock*>(a.segments.const_data_ptr<int32_t>());
  b.block_keys = reinterpret_cast<const QueryKey*>(a.segment_slots.const_data_ptr<int32_t>());
  b.output = output.data_ptr();
  b.tokens = static_cast<int32_t>(a.queries.size(0));
  b.query_heads = static_cast<int32_t>(a.queries.size(1));
  b.kv_heads = static_cast<int32_t>(a.keys.size(1));
  b.head_dim = static_cast<int32_t>(a.keys.size(2));
  b.block_count = static_cast<int32_t>(a.segments.size(0));
  b.scale = static_cast<float>(a.scale);
  b.window = static_cast<int32_t>(a.window);
  b.softcap = static_cast<float>(a.softcap);
  if (const int64_t bytes = PartBytes(b)) {
    *parts = at::empty({bytes}, output.options().dtype(at::kByte));
    SetParts(parts->data_ptr(), &b);
  }
  return b;
}

at::Tensor TreeAttentionSerial(const TreeAttentionArguments& a) {
  const at::Tensor output = at::empty(a.queries.sizes(), a.queries.options());
  at::Tensor parts;
  const BlockAttention blocks = BlocksOf(a, output, &parts);
  RunTreeAttentionSerially(blocks, FitsMatrixAttention(blocks));
  return output;
}

}  // namespace lmfusion
