#include "ops/tree_attention_tiles.h"

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

TiledAttention TilesOf(const TreeAttentionArguments& a, const at::Tensor& output,
                       at::Tensor* parts) {
  const TreeArguments& t = a.tree;
  TORCH_CHECK(t.segment_slots.dim() == 2 && t.segment_slots.size(1) == 4 &&
                  t.segment_slots.scalar_type() == at::kInt && t.segment_slots.is_contiguous() &&
                  t.segments.is_contiguous(),
              "tree_attention: keys of query tiles int32 [K, 4] expected");
  TORCH_CHECK(a.keys.size(2) <= 512, "tree_attention: heads of ", a.keys.size(2),
              "; up to 512 expected");
  TiledAttention b;
  b.queries = ViewOf(a.queries);
  b.keys = ViewOf(a.keys);
  b.values = ViewOf(a.values);
  b.activation = TypeOf(a.queries, "queries");
  b.sinks = t.sinks ? t.sinks->const_data_ptr<float>() : nullptr;
  const int64_t plane = t.kv.stride(1) * t.kv.element_size();
  b.pool_keys = static_cast<char*>(t.kv.data_ptr()) + t.layer * 2 * plane;
  b.pool_values = static_cast<char*>(b.pool_keys) + plane;
  b.pool = TypeOf(t.kv, "keys and values");
  b.positions = t.positions.const_data_ptr<int64_t>();
  b.slots = t.slots.const_data_ptr<int32_t>();
  b.tiles = reinterpret_cast<const QueryTile*>(t.segments.const_data_ptr<int32_t>());
  b.tile_keys = reinterpret_cast<const QueryKey*>(t.segment_slots.const_data_ptr<int32_t>());
  b.output = output.data_ptr();
  b.tokens = static_cast<int32_t>(a.queries.size(0));
  b.query_heads = static_cast<int32_t>(a.queries.size(1));
  b.kv_heads = static_cast<int32_t>(a.keys.size(1));
  b.head_dim = static_cast<int32_t>(a.keys.size(2));
  b.tile_count = static_cast<int32_t>(t.segments.size(0));
  b.scale = static_cast<float>(t.scale);
  b.window = static_cast<int32_t>(t.window);
  b.softcap = static_cast<float>(t.softcap);
  if (const int64_t bytes = PartBytes(b)) {
    *parts = at::empty({bytes}, output.options().dtype(at::kByte));
    SetParts(parts->data_ptr(), &b);
  }
  return b;
}

at::Tensor TreeAttentionSerial(const TreeAttentionArguments& a) {
  const at::Tensor output = at::empty(a.queries.sizes(), a.queries.options());
  at::Tensor parts;
  const TiledAttention tiles = TilesOf(a, output, &parts);
  RunTreeAttentionSerially(tiles, FitsMatrixAttention(tiles));
  return output;
}

}  // namespace lmfusion
