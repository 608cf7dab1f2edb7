#include "ops/output_ops.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "ops/narrow_weights.h"

namespace lmfusion {
namespace {

// Elements of the largest tile of logits held at once (8 MB of float32).
constexpr int64_t kTileElements = int64_t{1} << 21;

void Check(const char* name, const at::Tensor& hidden, const OutputLayer& output) {
  TORCH_CHECK(
      hidden.dim() == 2 && output.weight.dim() == 2 && hidden.size(1) == output.weight.size(1),
      name, ": hidden ", hidden.sizes(), " does not fit the output matrix ", output.weight.sizes());
  TORCH_CHECK(!output.bias || output.bias->numel() == output.weight.size(0), name,
              ": one bias a word expected");
}

at::Tensor Logits(const at::Tensor& products, const std::optional<at::Tensor>& bias, double scale,
                  double softcap) {
  at::Tensor logits = products.to(at::kFloat);
  if (bias) logits = logits + *bias;
  if (scale != 1) logits = logits * scale;
  if (softcap != 0) logits = (logits / softcap).tanh_().mul_(softcap);
  return logits;
}

at::Tensor TokenLogitsOp(const at::Tensor& hidden, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, const at::Tensor& tokens,
                         double scale, double softcap) {
  return TokenLogits(hidden, tokens, {weight, bias, scale, softcap});
}

// Calls f(logits [N, end - begin], begin, end) for one tile of the vocabulary after another.
template <typename F>
void ForEachTile(const at::Tensor& hidden, const OutputLayer& output, F f) {
  const int64_t rows = std::max<int64_t>(hidden.size(0), 1), vocabulary = output.weight.size(0);
  const int64_t tile = std::min(vocabulary, std::max<int64_t>(kTileElements / rows, 1024));
  for (int64_t begin = 0; begin < vocabulary; begin += tile) {
    const int64_t end = std::min(begin + tile, vocabulary);
    std::optional<at::Tensor> bias;
    if (output.bias) bias = output.bias->slice(0, begin, end);
    const at::Tensor products = ProductsInFloat32(hidden, output.weight.slice(0, begin, end));
    f(Logits(products, bias, output.scale, output.softcap), begin, end);
  }
}

at::Tensor LogSumExp(const std::vector<at::Tensor>& parts) {
  return parts.size() == 1 ? parts[0] : at::logsumexp(at::stack(parts, 1), 1);
}

// [1, N], or with a subset [2, N].
at::Tensor LogNormalizersOp(const at::Tensor& hidden, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias,
                            const std::optional<at::Tensor>& subset, double scale, double softcap) {
  const OutputLayer output{weight, bias, scale, softcap};
  if (!subset) return LogNormalizer(hidden, output).unsqueeze(0);
  const auto [all, some] = LogNormalizers(hidden, output, *subset);
  return at::stack({all, some});
}

at::Tensor LogNormalizersOnDevice(const at::Tensor& hidden, const OutputLayer& output,
                                  const std::optional<at::Tensor>& subset) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("lmfusion::log_normalizers", "")
                             .typed<decltype(LogNormalizersOp)>();
  return op.call(hidden, output.weight, output.bias, subset, output.scale, output.softcap);
}

at::Tensor TokenLogitsOnDevice(const at::Tensor& hidden, const at::Tensor& tokens,
                               const OutputLayer& output) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("lmfusion::token_logits", "")
                             .typed<decltype(TokenLogitsOp)>();
  return op.call(hidden, output.weight, output.bias, tokens, output.scale, output.softcap);
}

}  // namespace

at::Tensor LogNormalizer(const at::Tensor& hidden, const OutputLayer& output) {
  Check("log_normalizer", hidden, output);
  if (hidden.is_cuda()) return LogNormalizersOnDevice(hidden, output, std::nullopt)[0];
  std::vector<at::Tensor> parts;
  ForEachTile(hidden, output, [&](const at::Tensor& logits, int64_t, int64_t) {
    parts.push_back(at::logsumexp(logits, 1));
  });
  return LogSumExp(parts);
}

std::pair<at::Tensor, at::Tensor> LogNormalizers(const at::Tensor& hidden,
                                                 const OutputLayer& output,
                                                 const at::Tensor& subset) {
  Check("log_normalizers", hidden, output);
  TORCH_CHECK(subset.scalar_type() == at::kBool && subset.numel() == output.weight.size(0),
              "log_normalizers: one bool a word expected");
  if (hidden.is_cuda()) {
    const at::Tensor both = LogNormalizersOnDevice(hidden, output, subset);
    return {both[0], both[1]};
  }
  std::vector<at::Tensor> all, some;
  ForEachTile(hidden, output, [&](const at::Tensor& logits, int64_t begin, int64_t end) {
    all.push_back(at::logsumexp(logits, 1));
    const at::Tensor others = subset.slice(0, begin, end).logical_not();
    some.push_back(at::logsumexp(logits.masked_fill(others, -INFINITY), 1));
  });
  return {LogSumExp(all), LogSumExp(some)};
}

at::Tensor TokenLogits(const at::Tensor& hidden, const at::Tensor& tokens,
                       const OutputLayer& output) {
  Check("token_logits", hidden, output);
  TORCH_CHECK(tokens.dim() == 1 && tokens.size(0) == hidden.size(0),
              "token_logits: one token a row expected");
  if (hidden.is_cuda()) return TokenLogitsOnDevice(hidden, tokens, output);
  std::optional<at::Tensor> bias;
  if (output.bias) bias = output.bias->index_select(0, tokens);
  const at::Tensor rows = output.weight.index_select(0, tokens);
  const at::Tensor products =
      (hidden.to(rows.scalar_type()).to(at::kFloat) * rows.to(at::kFloat)).sum(1);
  return Logits(products, bias, output.scale, output.softcap);
}

// A CUDA device has its own "log_normalizers" and "token_logits" (ops/cuda_operators.cpp).
TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def(
      "log_normalizers(Tensor hidden, Tensor weight, Tensor? bias, Tensor? subset, float scale, "
      "float softcap) -> Tensor");
  m.def(
      "token_logits(Tensor hidden, Tensor weight, Tensor? bias, Tensor tokens, float scale, "
      "float softcap) -> Tensor");
}

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) {
  m.impl("log_normalizers", &LogNormalizersOp);
  m.impl("token_logits", &TokenLogitsOp);
}

}  // namespace lmfusion
