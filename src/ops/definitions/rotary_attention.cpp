#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "ops/definitions/definitions.h"

namespace lmfusion {
namespace {

// The heads [T, heads, head_dim] in columns [begin, end) of rows [1, T, columns].
at::Tensor HeadsIn(const at::Tensor& rows, int64_t begin, int64_t end, int64_t head_dim) {
  TORCH_CHECK(rows.dim() == 3 && rows.size(0) == 1 && begin >= 0 && end > begin &&
                  end <= rows.size(2) && (end - begin) % head_dim == 0,
              "rotary_attention: columns ", begin, " to ", end, " of ", rows.sizes(),
              " are no heads of ", head_dim);
  return rows[0].slice(1, begin, end).reshape({rows.size(1), -1, head_dim});
}

// The rotary embedding of Su et al. 2021: x * cos + (-x2, x1) * sin, with x = (x1, x2) the halves
// of a head (as Llama's), or its even and odd elements (as Cohere's): `interleaved`. cos, sin
// [.., T, n]: elements of a head behind the first n stay as they are.
at::Tensor Rotated(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                   bool interleaved) {
  const int64_t tokens = x.size(0), n = cos.size(-1);
  TORCH_CHECK(
      n % 2 == 0 && n <= x.size(2) && cos.numel() == tokens * n && sin.numel() == tokens * n,
      "rotary_attention: cos ", cos.sizes(), " and sin ", sin.sizes(), " do not fit heads ",
      x.sizes());
  const at::Tensor part = x.slice(2, 0, n);
  const at::Tensor turned =
      interleaved ? at::stack({-part.slice(2, 1, n, 2), part.slice(2, 0, n, 2)}, -1).flatten(-2)
                  : at::cat({-part.slice(2, n / 2, n), part.slice(2, 0, n / 2)}, -1);
  const at::Tensor rotated =
      part * cos.reshape({tokens, 1, n}) + turned * sin.reshape({tokens, 1, n});
  return n == x.size(2) ? rotated : at::cat({rotated, x.slice(2, n)}, -1);
}

}  // namespace

at::Tensor RotaryAttentionByDefinition(
    const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
    at::IntArrayRef columns, const std::optional<at::Tensor>& query_weight, double query_epsilon,
    const std::optional<at::Tensor>& key_weight, double key_epsilon, bool centered,
    const std::optional<at::Tensor>& cos, const std::optional<at::Tensor>& sin, bool interleaved,
    const std::optional<at::Tensor>& sinks, at::Tensor& kv, const at::Tensor& positions,
    const at::Tensor& slots, const at::Tensor& segments, const at::Tensor& segment_slots,
    int64_t layer, double scale, int64_t window, double softcap) {
  TORCH_CHECK(kv.dim() == 5 && columns.size() == 6 && cos.has_value() == sin.has_value(),
              "rotary_attention: kv ", kv.sizes(), ", columns ", columns);
  const int64_t head_dim = kv.size(4);
  at::Tensor q = HeadsIn(queries, columns[0], columns[1], head_dim);
  at::Tensor k = HeadsIn(keys, columns[2], columns[3], head_dim);
  const at::Tensor v = HeadsIn(values, columns[4], columns[5], head_dim);
  if (query_weight) q = NormalizedByDefinition(q, query_epsilon, centered) * *query_weight;
  if (key_weight) k = NormalizedByDefinition(k, key_epsilon, centered) * *key_weight;
  if (cos) {
    q = Rotated(q, *cos, *sin, interleaved);
    k = Rotated(k, *cos, *sin, interleaved);
  }
  static const auto attend =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("lmfusion::tree_attention", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                            const std::optional<at::Tensor>&, at::Tensor&, const at::Tensor&,
                            const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                            double, int64_t, double)>();
  return attend
      .call(q, k, v, sinks, kv, positions, slots, segments, segment_slots, layer, scale, window,
            softcap)
      .reshape({1, queries.size(1), columns[1] - columns[0]});
}

namespace {

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  // Tree attention with what stands before it in a layer. q, k, v [1, T, columns], the same product
  // or not, hold heads side by side: columns = begin and end of queries, of keys, of values. Heads
  // of queries and keys are normalised (q_weight, k_weight: [head_dim] or [heads, head_dim];
  // `centered` as in normalize), rotated by cos and sin (T * n numbers, token by token), and
  // attend; see ops/tree_attention.h. Returns [1, T, query heads * head_dim].
  m.def(
      "rotary_attention(Tensor q, Tensor k, Tensor v, int[] columns, Tensor? q_weight, "
      "float q_epsilon, Tensor? k_weight, float k_epsilon, bool centered, Tensor? cos, "
      "Tensor? sin, bool interleaved, Tensor? sinks, Tensor(a!) kv, Tensor positions, "
      "Tensor slots, Tensor segments, Tensor segment_slots, int layer, float scale, int window, "
      "float softcap) -> Tensor");
}

TORCH_LIBRARY_IMPL(lmfusion, CompositeExplicitAutograd, m) {
  m.impl("rotary_attention", &RotaryAttentionByDefinition);
}

}  // namespace
}  // namespace lmfusion
