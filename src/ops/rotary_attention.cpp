#include "ops/rotary_attention.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "ops/fused_ops.h"
#include "ops/parallel.h"

namespace lmfusion {
namespace {

constexpr int64_t kGrainElements = 1 << 14;  // of one piece of work

// [1, T, n] with dense rows.
at::Tensor DenseRows(const char* name, const at::Tensor& x, int64_t tokens, int64_t head_dim) {
  TORCH_CHECK(x.dim() == 3 && x.size(0) == 1 && x.size(1) == tokens && x.size(2) > 0 &&
                  x.size(2) % head_dim == 0 && x.scalar_type() == at::kFloat && x.device().is_cpu(),
              "rotary_attention: float32 ", name, " [1, ", tokens, ", heads * ", head_dim,
              "] on the CPU expected, got ", x.sizes(), " of ", x.dtype());
  return x.stride(2) == 1 ? x : x.contiguous();
}

// What is done to each head of queries or keys.
class Heads {
 public:
  Heads(const HeadNorm& norm, const at::Tensor& cos, const at::Tensor& sin, int64_t head_dim)
      : epsilon_(static_cast<float>(norm.epsilon)), head_dim_(head_dim) {
    if (norm.weight) {
      TORCH_CHECK(norm.weight->numel() == head_dim && norm.weight->scalar_type() == at::kFloat,
                  "rotary_attention: float32 norm weights [", head_dim, "] expected");
      weight_ = norm.weight->contiguous();
    }
    if (cos.defined()) {
      cos_ = cos.const_data_ptr<float>();
      sin_ = sin.const_data_ptr<float>();
    }
  }

  // All heads of one token; scratch: [head_dim].
  void Apply(int64_t token, const float* x, int64_t count, float* scratch, float* y) const {
    for (int64_t head = 0; head < count; ++head, x += head_dim_, y += head_dim_) {
      const float* from = x;
      if (weight_.defined()) {
        float* to = cos_ ? scratch : y;
        NormalizeRow(x, weight_.const_data_ptr<float>(), head_dim_, epsilon_, to);
        from = to;
      }
      if (cos_) {
        const int64_t angle = token * head_dim_;
        RotateRow(from, cos_ + angle, sin_ + angle, head_dim_ / 2, y);
      } else if (from == x) {
        std::copy_n(x, head_dim_, y);
      }
    }
  }

 private:
  at::Tensor weight_;
  const float epsilon_;
  const float* cos_ = nullptr;
  const float* sin_ = nullptr;
  const int64_t head_dim_;
};

at::Tensor Angles(const std::optional<at::Tensor>& angles, int64_t tokens, int64_t head_dim) {
  if (!angles) return {};
  TORCH_CHECK(angles->numel() == tokens * head_dim && head_dim % 2 == 0 &&
                  angles->scalar_type() == at::kFloat,
              "rotary_attention: float32 cos and sin of ", tokens, " tokens and ", head_dim,
              " dimensions expected, got ", angles->sizes());
  return angles->contiguous();
}

at::Tensor RotaryAttentionOp(
    const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
    const std::optional<at::Tensor>& query_weight, double query_epsilon,
    const std::optional<at::Tensor>& key_weight, double key_epsilon,
    const std::optional<at::Tensor>& cos, const std::optional<at::Tensor>& sin,
    const std::optional<at::Tensor>& sinks, at::Tensor& kv, const at::Tensor& positions,
    const at::Tensor& slots, const at::Tensor& segments, const at::Tensor& segment_slots,
    int64_t layer, double scale, int64_t window, double softcap) {
  TORCH_CHECK(kv.dim() == 5 && queries.dim() == 3 && keys.dim() == 3, "rotary_attention: kv ",
              kv.sizes(), ", queries ", queries.sizes());
  const int64_t tokens = queries.size(1), head_dim = kv.size(4);
  const at::Tensor q = DenseRows("queries", queries, tokens, head_dim);
  const at::Tensor k = DenseRows("keys", keys, tokens, head_dim);
  const at::Tensor v = DenseRows("values", values, tokens, head_dim);
  TORCH_CHECK(k.size(2) == v.size(2), "rotary_attention: keys ", k.sizes(), " and values ",
              v.sizes(), " of one size expected");
  return RotaryAttention(
      {q, k, v, {query_weight, query_epsilon}, {key_weight, key_epsilon}, cos, sin},
      CheckedTreeBatch({tokens, q.size(2) / head_dim, k.size(2) / head_dim, head_dim}, sinks, kv,
                       positions, slots, segments, segment_slots, layer, scale, window, softcap));
}

}  // namespace

at::Tensor RotaryAttention(const RotaryAttentionArguments& heads, TreeAttentionArguments tree) {
  const int64_t tokens = heads.queries.size(1), width = heads.queries.size(2);
  const int64_t head_dim = tree.kv.size(4), kv_width = tree.kv.size(3) * head_dim;
  const at::Tensor cos = Angles(heads.cos, tokens, head_dim);
  const at::Tensor sin = Angles(heads.sin, tokens, head_dim);
  const Heads query_heads(heads.query_norm, cos, sin, head_dim);
  const Heads key_heads(heads.key_norm, cos, sin, head_dim);
  at::Tensor queries = at::empty({tokens, width / head_dim, head_dim}, at::kFloat);
  const float* q = heads.queries.const_data_ptr<float>();
  const float* k = heads.keys.const_data_ptr<float>();
  const float* v = heads.values.const_data_ptr<float>();
  float* pool_keys = tree.kv.data_ptr<float>() + tree.layer * tree.kv.stride(0);
  float* pool_values = pool_keys + tree.kv.stride(1);
  const int32_t* slots = tree.slots.const_data_ptr<int32_t>();
  float* rotated = queries.data_ptr<float>();
  const int64_t grain = std::max<int64_t>(1, kGrainElements / (width + 2 * kv_width));
  ParallelFor(0, tokens, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(head_dim);
    for (int64_t t = begin; t < end; ++t) {
      query_heads.Apply(t, q + t * heads.queries.stride(1), width / head_dim, scratch.data(),
                        rotated + t * width);
      key_heads.Apply(t, k + t * heads.keys.stride(1), kv_width / head_dim, scratch.data(),
                      pool_keys + slots[t] * kv_width);
      std::copy_n(v + t * heads.values.stride(1), kv_width, pool_values + slots[t] * kv_width);
    }
  });
  tree.queries = std::move(queries);
  at::Tensor output = at::empty({1, tokens, width}, at::kFloat);
  AttendCpu(tree, output.data_ptr<float>());
  return output;
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def(
      "rotary_attention(Tensor q, Tensor k, Tensor v, Tensor? q_weight, float q_epsilon, "
      "Tensor? k_weight, float k_epsilon, Tensor? cos, Tensor? sin, Tensor? sinks, "
      "Tensor(a!) kv, Tensor positions, Tensor slots, Tensor segments, Tensor segment_slots, "
      "int layer, float scale, int window, float softcap) -> Tensor",
      &RotaryAttentionOp);
}

}  // namespace lmfusion
