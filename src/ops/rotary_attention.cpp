#include "ops/rotary_attention.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/threads/parallel.h"
#include "ops/definitions/definitions.h"
#include "ops/fused_ops.h"

namespace lmfusion {
namespace {

constexpr int64_t kGrainElements = 1 << 14;  // of one piece of work

// Columns [begin, end) of x [1, T, columns], as a slice takes them, with dense rows; and how many.
std::pair<HeadColumns, int64_t> ColumnsOf(const char* name, const at::Tensor& x, int64_t begin,
                                          int64_t end, int64_t tokens, int64_t head_dim) {
  TORCH_CHECK(x.dim() == 3 && x.size(0) == 1 && x.size(1) == tokens &&
                  x.scalar_type() == at::kFloat && x.device().is_cpu(),
              "rotary_attention: float32 ", name, " [1, ", tokens,
              ", columns] on the CPU "
              "expected, got ",
              x.sizes(), " of ", x.dtype());
  const int64_t width = std::min(end, x.size(2)) - begin;
  TORCH_CHECK(begin >= 0 && width > 0 && width % head_dim == 0, "rotary_attention: columns ", begin,
              " to ", end, " of ", name, " ", x.sizes(), " are no heads of ", head_dim);
  return {{x.stride(2) == 1 ? x : x.contiguous(), begin}, width};
}

// What is done to each head of queries or keys.
class Heads {
 public:
  Heads(const HeadNorm& norm, const HeadRotation& rotation, int64_t head_dim)
      : rotation_(rotation), head_dim_(head_dim) {
    norm_.epsilon = static_cast<float>(norm.epsilon);
    if (!norm.weight) return;
    TORCH_CHECK(norm.weight->numel() == head_dim && norm.weight->scalar_type() == at::kFloat,
                "rotary_attention: float32 norm weights [", head_dim, "] expected");
    weight_ = norm.weight->contiguous();
    norm_.weight = weight_.const_data_ptr<float>();
  }

  // All heads of one token; scratch: [head_dim].
  void Apply(int64_t token, const float* x, int64_t count, float* scratch, float* y) const {
    HeadRotation rotation = rotation_;
    if (rotation.n > 0) {
      rotation.cos += token * rotation.n;
      rotation.sin += token * rotation.n;
    }
    for (int64_t head = 0; head < count; ++head, x += head_dim_, y += head_dim_) {
      const float* from = x;
      if (norm_.weight) {
        float* to = rotation.n > 0 ? scratch : y;
        NormalizeRow(x, norm_, head_dim_, to);
        from = to;
      }
      if (rotation.n > 0) {
        RotateHead(from, rotation, head_dim_, y);
      } else if (from == x) {
        std::copy_n(x, head_dim_, y);
      }
    }
  }

 private:
  at::Tensor weight_;
  RowNorm norm_;
  const HeadRotation rotation_;  // of the first token
  const int64_t head_dim_;
};

at::Tensor Angles(const std::optional<at::Tensor>& angles, int64_t tokens, int64_t head_dim) {
  if (!angles) return {};
  const int64_t n = angles->dim() > 0 ? angles->size(-1) : 0;
  TORCH_CHECK(n > 0 && n % 2 == 0 && n <= head_dim && angles->numel() == tokens * n &&
                  angles->scalar_type() == at::kFloat,
              "rotary_attention: float32 cos and sin of ", tokens, " tokens and up to ", head_dim,
              " dimensions expected, got ", angles->sizes());
  return angles->contiguous();
}

at::Tensor RotaryAttentionOp(const at::Tensor& queries, const at::Tensor& keys,
                             const at::Tensor& values, at::IntArrayRef columns,
                             const std::optional<at::Tensor>& query_weight, double query_epsilon,
                             const std::optional<at::Tensor>& key_weight, double key_epsilon,
                             bool centered, const std::optional<at::Tensor>& cos,
                             const std::optional<at::Tensor>& sin, bool interleaved,
                             const std::optional<at::Tensor>& sinks, at::Tensor& kv,
                             const at::Tensor& positions, const at::Tensor& slots,
                             const at::Tensor& segments, const at::Tensor& segment_slots,
                             int64_t layer, double scale, int64_t window, double softcap) {
  const bool per_head =
      (query_weight && query_weight->dim() > 1) || (key_weight && key_weight->dim() > 1);
  if (segment_slots.dim() == 2 || kv.scalar_type() != at::kFloat || centered || per_head) {
    return RotaryAttentionByDefinition(queries, keys, values, columns, query_weight, query_epsilon,
                                       key_weight, key_epsilon, centered, cos, sin, interleaved,
                                       sinks, kv, positions, slots, segments, segment_slots, layer,
                                       scale, window, softcap);
  }
  TORCH_CHECK(kv.dim() == 5 && queries.dim() == 3 && columns.size() == 6, "rotary_attention: kv ",
              kv.sizes(), ", queries ", queries.sizes(), ", columns ", columns);
  const int64_t tokens = queries.size(1), head_dim = kv.size(4);
  const auto [q, q_width] = ColumnsOf("queries", queries, columns[0], columns[1], tokens, head_dim);
  const auto [k, k_width] = ColumnsOf("keys", keys, columns[2], columns[3], tokens, head_dim);
  const auto [v, v_width] = ColumnsOf("values", values, columns[4], columns[5], tokens, head_dim);
  TORCH_CHECK(k_width == v_width, "rotary_attention: ", k_width, " columns of keys and ", v_width,
              " of values");
  return RotaryAttention(
      {q,
       k,
       v,
       q_width / head_dim,
       {query_weight, query_epsilon},
       {key_weight, key_epsilon},
       cos,
       sin,
       interleaved},
      CheckedTreeBatch({tokens, q_width / head_dim, k_width / head_dim, head_dim}, sinks, kv,
                       positions, slots, segments, segment_slots, layer, scale, window, softcap));
}

const float* FirstRow(const HeadColumns& heads) {
  return heads.rows.const_data_ptr<float>() + heads.begin;
}

}  // namespace

at::Tensor RotaryAttention(const RotaryAttentionArguments& heads, TreeAttentionArguments tree) {
  const int64_t tokens = heads.queries.rows.size(1), head_dim = tree.kv.size(4);
  const int64_t width = heads.query_heads * head_dim, kv_width = tree.kv.size(3) * head_dim;
  const at::Tensor cos = Angles(heads.cos, tokens, head_dim);
  const at::Tensor sin = Angles(heads.sin, tokens, head_dim);
  HeadRotation rotation;
  if (cos.defined()) {
    TORCH_CHECK(sin.defined() && sin.numel() == cos.numel(), "rotary_attention: sin of ",
                cos.numel(), " numbers expected, as cos");
    rotation = {cos.const_data_ptr<float>(), sin.const_data_ptr<float>(), cos.size(-1),
                heads.interleaved};
  }
  const Heads query_heads(heads.query_norm, rotation, head_dim);
  const Heads key_heads(heads.key_norm, rotation, head_dim);
  at::Tensor queries = at::empty({tokens, heads.query_heads, head_dim}, at::kFloat);
  const float* q = FirstRow(heads.queries);
  const float* k = FirstRow(heads.keys);
  const float* v = FirstRow(heads.values);
  const int64_t q_stride = heads.queries.rows.stride(1), k_stride = heads.keys.rows.stride(1);
  const int64_t v_stride = heads.values.rows.stride(1);
  float* pool_keys = tree.kv.data_ptr<float>() + tree.layer * tree.kv.stride(0);
  float* pool_values = pool_keys + tree.kv.stride(1);
  const int32_t* slots = tree.slots.const_data_ptr<int32_t>();
  float* rotated = queries.data_ptr<float>();
  const int64_t grain = std::max<int64_t>(1, kGrainElements / (width + 2 * kv_width));
  ParallelFor(0, tokens, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(head_dim);
    for (int64_t t = begin; t < end; ++t) {
      query_heads.Apply(t, q + t * q_stride, heads.query_heads, scratch.data(),
                        rotated + t * width);
      key_heads.Apply(t, k + t * k_stride, kv_width / head_dim, scratch.data(),
                      pool_keys + slots[t] * kv_width);
      std::copy_n(v + t * v_stride, kv_width, pool_values + slots[t] * kv_width);
    }
  });
  tree.queries = std::move(queries);
  at::Tensor output = at::empty({1, tokens, width}, at::kFloat);
  AttendCpu(tree, output.data_ptr<float>());
  return output;
}

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) { m.impl("rotary_attention", &RotaryAttentionOp); }

}  // namespace lmfusion
