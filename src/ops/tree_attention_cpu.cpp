#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/clones.h"
#include "ops/fast_exp.h"
#include "ops/parallel.h"
#include "ops/tree_attention.h"

namespace lmfusion {
namespace {

constexpr int kTokenBlock = 16;  // tokens of one work item: they share their reads of a key
constexpr int kKeyTile = 64;     // keys scored before the running softmax is updated

struct Segment {
  int32_t key_begin, key_end, token_begin, token_end, first_position;
};

// scores[j] = query . key_j for the keys at the given slots.
LMFUSION_CLONES
void DotKeys(const float* query, const float* keys, const int32_t* slots, int count,
             int64_t stride, int head_dim, float* scores) {
  for (int j = 0; j < count; ++j) {
    const float* key = keys + slots[j] * stride;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int d = 0; d < head_dim; ++d) sum += query[d] * key[d];
    scores[j] = sum;
  }
}

// output = output * decay + sum_j weights[j] * value_j.
LMFUSION_CLONES
void AddValues(const float* weights, const float* values, const int32_t* slots, int count,
               int64_t stride, int head_dim, float decay, float* output) {
#pragma omp simd
  for (int d = 0; d < head_dim; ++d) output[d] *= decay;
  for (int j = 0; j < count; ++j) {
    const float* value = values + slots[j] * stride;
    const float weight = weights[j];
#pragma omp simd
    for (int d = 0; d < head_dim; ++d) output[d] += weight * value[d];
  }
}

// scores[j] = exp(scores[j] - largest); returns their sum.
LMFUSION_CLONES
float Exponentials(float* scores, int count, float largest) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int j = 0; j < count; ++j) {
    scores[j] = FastExp(scores[j] - largest);
    sum += scores[j];
  }
  return sum;
}

// The running softmax of one query: its largest score, its sum of exponentials relative to that.
struct Softmax {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

class Kernel {
 public:
  Kernel(const TreeAttentionArguments& a, float* output)
      : a_(a),
        tokens_(a.queries.size(0)),
        query_heads_(a.queries.size(1)),
        kv_heads_(a.kv.size(3)),
        group_(query_heads_ / kv_heads_),
        head_dim_(static_cast<int>(a.kv.size(4))),
        stride_(kv_heads_ * head_dim_),
        pool_keys_(a.kv.data_ptr<float>() + a.layer * 2 * a.kv.stride(1)),
        pool_values_(pool_keys_ + a.kv.stride(1)),
        segments_(reinterpret_cast<const Segment*>(a.segments.data_ptr<int32_t>())),
        segment_count_(a.segments.size(0)),
        slots_(a.segment_slots.data_ptr<int32_t>()),
        output_(output) {}

  void Scatter() const {
    const int32_t* slots = a_.slots.data_ptr<int32_t>();
    const float* keys = a_.keys.data_ptr<float>();
    const float* values = a_.values.data_ptr<float>();
    for (int64_t t = 0; t < tokens_; ++t) {
      std::copy_n(keys + t * stride_, stride_, pool_keys_ + slots[t] * stride_);
      std::copy_n(values + t * stride_, stride_, pool_values_ + slots[t] * stride_);
    }
  }

  void Attend() const {
    const int64_t blocks = (tokens_ + kTokenBlock - 1) / kTokenBlock;
    ParallelFor(0, blocks * kv_heads_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) Block(item / kv_heads_, item % kv_heads_);
    });
  }

 private:
  // All queries of one block of tokens that share one key/value head.
  void Block(int64_t block, int64_t kv_head) const {
    const int64_t first = block * kTokenBlock;
    const int64_t last = std::min(tokens_, first + kTokenBlock);
    std::vector<Softmax> softmax((last - first) * group_);
    for (int64_t t = first; t < last; ++t) {
      std::fill_n(Output(t, kv_head * group_), group_ * head_dim_, 0.0f);
    }
    for (int64_t s = 0; s < segment_count_; ++s) {
      const Segment& segment = segments_[s];
      const int64_t begin = std::max<int64_t>(first, segment.token_begin);
      const int64_t end = std::min<int64_t>(last, segment.token_end);
      if (begin >= end) continue;
      for (int key = segment.key_begin; key < segment.key_end; key += kKeyTile) {
        const int tile_end = std::min(segment.key_end, key + kKeyTile);
        for (int64_t t = begin; t < end; ++t) {
          for (int64_t g = 0; g < group_; ++g) {
            AddTile(segment, key, tile_end, t, kv_head, kv_head * group_ + g,
                    &softmax[(t - first) * group_ + g]);
          }
        }
      }
    }
    for (int64_t t = first; t < last; ++t) {
      for (int64_t g = 0; g < group_; ++g) {
        Finish(t, kv_head * group_ + g, softmax[(t - first) * group_ + g]);
      }
    }
  }

  // Adds the keys [key, tile_end) of a segment to one query's running softmax.
  void AddTile(const Segment& segment, int key, int tile_end, int64_t token, int64_t kv_head,
               int64_t head, Softmax* softmax) const {
    // Positions of the keys run with their index: key i stands at i + shift.
    const int64_t shift = segment.first_position - segment.key_begin;
    const int64_t position = a_.positions.data_ptr<int64_t>()[token];
    const int64_t end = std::min<int64_t>(tile_end, position + 1 - shift);
    int64_t begin = key;
    if (a_.window > 0) begin = std::max<int64_t>(begin, position - a_.window + 1 - shift);
    if (begin >= end) return;
    const int count = static_cast<int>(end - begin);
    float scores[kKeyTile];
    DotKeys(a_.queries.data_ptr<float>() + (token * query_heads_ + head) * head_dim_,
            pool_keys_ + kv_head * head_dim_, slots_ + begin, count, stride_, head_dim_, scores);
    const float scale = static_cast<float>(a_.scale), cap = static_cast<float>(a_.softcap);
    float largest = softmax->largest;
    for (int j = 0; j < count; ++j) {
      scores[j] *= scale;
      if (cap > 0) scores[j] = cap * std::tanh(scores[j] / cap);
      largest = std::max(largest, scores[j]);
    }
    const float decay = softmax->sum > 0 ? std::exp(softmax->largest - largest) : 0;
    const float sum = softmax->sum * decay + Exponentials(scores, count, largest);
    AddValues(scores, pool_values_ + kv_head * head_dim_, slots_ + begin, count, stride_,
              head_dim_, decay, Output(token, head));
    *softmax = {largest, sum};
  }

  void Finish(int64_t token, int64_t head, const Softmax& softmax) const {
    float sum = softmax.sum;
    if (a_.sinks) sum += std::exp(a_.sinks->data_ptr<float>()[head] - softmax.largest);
    float* output = Output(token, head);
    for (int d = 0; d < head_dim_; ++d) output[d] /= sum;
  }

  float* Output(int64_t token, int64_t head) const {
    return output_ + (token * query_heads_ + head) * head_dim_;
  }

  const TreeAttentionArguments& a_;
  const int64_t tokens_, query_heads_, kv_heads_, group_;
  const int head_dim_;
  const int64_t stride_;  // floats from one slot's key to the next slot's
  float* const pool_keys_;
  float* const pool_values_;
  const Segment* const segments_;
  const int64_t segment_count_;
  const int32_t* const slots_;
  float* const output_;
};

}  // namespace

at::Tensor TreeAttentionCpu(const TreeAttentionArguments& arguments) {
  at::Tensor output = at::empty(arguments.queries.sizes(), arguments.queries.options());
  const Kernel kernel(arguments, output.data_ptr<float>());
  kernel.Scatter();
  kernel.Attend();
  return output;
}

void AttendCpu(const TreeAttentionArguments& arguments, float* output) {
  Kernel(arguments, output).Attend();
}

}  // namespace lmfusion
