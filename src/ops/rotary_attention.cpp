// lmfusion::rotary_attention on the CPU, in float32: heads of queries and keys are normalised
// (optional) and rotated (optional), keys and values written straight to their slots. Its
// definition does the rest: pools of other types, and query tiles.
#include "kernels/attention/rotary_attention.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>

#include "ops/definitions/definitions.h"
#include "ops/pooled_floats.h"
#include "ops/tree_attention.h"

namespace lmfusion {
namespace {

// Heads of all tokens: columns [begin, end) of x [1, T, columns], as a slice takes them.
struct Heads {
  Heads(const char* name, const at::Tensor& x, int64_t begin, int64_t end, int64_t tokens,
        int64_t head_dim) {
    TORCH_CHECK(x.dim() == 3 && x.size(0) == 1 && x.size(1) == tokens &&
                    x.scalar_type() == at::kFloat && x.device().is_cpu(),
                "rotary_attention: float32 ", name, " [1, ", tokens,
                ", columns] on the CPU expected, got ", x.sizes(), " of ", x.dtype());
    const int64_t width = std::min(end, x.size(2)) - begin;
    TORCH_CHECK(begin >= 0 && width > 0 && width % head_dim == 0, "rotary_attention: columns ",
                begin, " to ", end, " of ", name, " ", x.sizes(), " are no heads of ", head_dim);
    memory = x.stride(2) == 1 ? x : x.contiguous();
    rows = {memory.const_data_ptr<float>() + begin, memory.stride(1)};
    count = width / head_dim;
  }

  at::Tensor memory;
  HeadRows rows;
  int64_t count;
};

// The norm of each of `count` heads; `memory` keeps its weights, [head_dim] or [count, head_dim].
HeadNorm NormOf(const std::optional<at::Tensor>& weight, double epsilon, bool centered,
                int64_t count, int64_t head_dim, at::Tensor* memory) {
  HeadNorm norm;
  if (!weight) return norm;
  const bool one = weight->dim() <= 1;
  TORCH_CHECK(
      weight->numel() == (one ? 1 : count) * head_dim && weight->scalar_type() == at::kFloat,
      "rotary_attention: float32 norm weights [", head_dim, "] or [", count, ", ", head_dim,
      "] expected, got ", weight->sizes());
  *memory = weight->contiguous();
  norm.of_first = {memory->const_data_ptr<float>(), nullptr, static_cast<float>(epsilon), centered};
  norm.weight_step = one ? 0 : head_dim;
  return norm;
}

// T * n numbers, token by token.
at::Tensor Angles(const std::optional<at::Tensor>& angles, int64_t tokens, int64_t head_dim) {
  if (!angles) return {};
  const int64_t n = angles->dim() > 0 ? angles->size(-1) : 0;
  TORCH_CHECK(n > 0 && n % 2 == 0 && n <= head_dim && angles->numel() == tokens * n &&
                  angles->scalar_type() == at::kFloat,
              "rotary_attention: float32 cos and sin of ", tokens, " tokens and up to ", head_dim,
              " dimensions expected, got ", angles->sizes());
  return angles->contiguous();
}

// columns: [begin, end) of queries, of keys, and of values, in tensors that may be one. Returns
// [1, T, query_heads * head_dim].
at::Tensor RotaryAttention(const at::Tensor& queries, const at::Tensor& keys,
                           const at::Tensor& values, at::IntArrayRef columns,
                           const std::optional<at::Tensor>& query_weight, double query_epsilon,
                           const std::optional<at::Tensor>& key_weight, double key_epsilon,
                           bool centered, const std::optional<at::Tensor>& cos,
                           const std::optional<at::Tensor>& sin, bool interleaved,
                           const std::optional<at::Tensor>& sinks, at::Tensor& kv,
                           const at::Tensor& positions, const at::Tensor& slots,
                           const at::Tensor& segments, const at::Tensor& segment_slots,
                           int64_t layer, double scale, int64_t window, double softcap) {
  if (segment_slots.dim() == 2 || kv.scalar_type() != at::kFloat) {
    return RotaryAttentionByDefinition(queries, keys, values, columns, query_weight, query_epsilon,
                                       key_weight, key_epsilon, centered, cos, sin, interleaved,
                                       sinks, kv, positions, slots, segments, segment_slots, layer,
                                       scale, window, softcap);
  }
  TORCH_CHECK(kv.dim() == 5 && queries.dim() == 3 && columns.size() == 6, "rotary_attention: kv ",
              kv.sizes(), ", queries ", queries.sizes(), ", columns ", columns);
  const int64_t tokens = queries.size(1), head_dim = kv.size(4);
  const Heads q("queries", queries, columns[0], columns[1], tokens, head_dim);
  const Heads k("keys", keys, columns[2], columns[3], tokens, head_dim);
  const Heads v("values", values, columns[4], columns[5], tokens, head_dim);
  TORCH_CHECK(k.count == v.count, "rotary_attention: ", k.count, " heads of keys and ", v.count,
              " of values");
  const HeadShape shape{tokens, q.count, k.count, head_dim};
  const TreeArguments tree = Checked(
      {sinks, kv, positions, slots, segments, segment_slots, layer, scale, window, softcap}, shape);
  at::Tensor query_weights, key_weights;
  HeadRotations heads{
      q.rows,
      k.rows,
      v.rows,
      NormOf(query_weight, query_epsilon, centered, q.count, head_dim, &query_weights),
      NormOf(key_weight, key_epsilon, centered, k.count, head_dim, &key_weights),
      {}};
  const at::Tensor cosines = Angles(cos, tokens, head_dim), sines = Angles(sin, tokens, head_dim);
  if (cos) {
    TORCH_CHECK(sin && sines.numel() == cosines.numel(), "rotary_attention: sin of ",
                cosines.numel(), " numbers expected, as cos");
    heads.rotation = {cosines.const_data_ptr<float>(), sines.const_data_ptr<float>(),
                      cosines.size(-1), interleaved};
  }
  TreeAttentionBatch batch = BatchOf(tree, shape);
  const at::Tensor rotated = EmptyFloats({tokens, q.count, head_dim});
  at::Tensor output = EmptyFloats({1, tokens, q.count * head_dim});
  RotateToSlots(heads, batch, rotated.data_ptr<float>());
  batch.queries = rotated.const_data_ptr<float>();
  Attend(batch, output.data_ptr<float>());
  return output;
}

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) { m.impl("rotary_attention", &RotaryAttention); }

}  // namespace
}  // namespace lmfusion
