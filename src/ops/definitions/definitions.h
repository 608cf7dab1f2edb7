#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/string_view.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace lmfusion {

// What the fused operators of exported graphs mean, written in operators of torch that run on any
// device. These are the dispatcher's kernels where a device has none of its own, what a kernel
// falls back to for arguments that it does not take, and what tests hold the kernels to. The
// schemas, with the formulas, are in the .cpp files of this folder.

// x / sqrt(mean(x^2) + epsilon) over the last dimension; `centered`: of x - mean(x).
at::Tensor NormalizedByDefinition(const at::Tensor& x, double epsilon, bool centered);

// activation: "silu", "gelu" (by the error function), "gelu_tanh" or "relu"; see gate.cpp.
at::Tensor ActivatedByDefinition(const at::Tensor& x, c10::string_view activation);

at::Tensor GateByDefinition(const at::Tensor& x, const std::optional<at::Tensor>& up,
                            c10::string_view activation, int64_t begin, int64_t up_begin,
                            int64_t width);

// The top_k experts of each token: numbers [T, top_k] int64 and weights [T, top_k].
struct ChosenExperts {
  at::Tensor numbers, weights;
};
ChosenExperts ExpertsOfTokens(const at::Tensor& logits, int64_t top_k, bool normalized);

// The product of x [T, columns] with the matrix of one expert, plus its bias: [T, rows].
using ExpertProduct = std::function<at::Tensor(int64_t expert, const at::Tensor& x)>;
// lmfusion::experts (experts.cpp), whatever its matrices are held in.
at::Tensor SumOfExperts(const at::Tensor& x, const at::Tensor& logits,
                        const std::optional<at::Tensor>& residual, c10::string_view activation,
                        int64_t count, int64_t top_k, bool normalized, const ExpertProduct& gate_up,
                        const ExpertProduct& down);

at::Tensor RotaryAttentionByDefinition(
    const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
    at::IntArrayRef columns, const std::optional<at::Tensor>& query_weight, double query_epsilon,
    const std::optional<at::Tensor>& key_weight, double key_epsilon, bool centered,
    const std::optional<at::Tensor>& cos, const std::optional<at::Tensor>& sin, bool interleaved,
    const std::optional<at::Tensor>& sinks, at::Tensor& kv, const at::Tensor& positions,
    const at::Tensor& slots, const at::Tensor& segments, const at::Tensor& segment_slots,
    int64_t layer, double scale, int64_t window, double softcap);

}  // namespace lmfusion
