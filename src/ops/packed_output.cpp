#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/linear/linear_kernels.h"
#include "kernels/linear/weight_blocks.h"
#include "kernels/threads/parallel.h"
#include "ops/output_ops.h"
#include "ops/panel_products.h"

namespace lmfusion {
namespace {

constexpr int64_t kTilePanels = 8;
constexpr int64_t kTileTokens = kTilePanels * kPanelOutputs;

void CheckHidden(const char* name, const at::Tensor& hidden, const PackedOutputLayer& output) {
  TORCH_CHECK(output.weight, name, ": no output matrix");
  TORCH_CHECK(hidden.dim() == 2 && hidden.size(1) == output.weight->in_features() &&
                  hidden.scalar_type() == at::kFloat && hidden.device().is_cpu(),
              name, ": float32 hidden states [N, ", output.weight->in_features(),
              "] on the CPU expected, got ", hidden.sizes(), " of ", hidden.dtype());
}

LogitRule RuleOf(const PackedOutputLayer& output) {
  return {static_cast<float>(output.scale), static_cast<float>(output.softcap)};
}

// log of the sum of all parts of one row, `step` apart.
float LogOfSum(const PartialSum* parts, int64_t count, int64_t step) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, parts[i * step].largest);
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const PartialSum& part = parts[i * step];
    const bool empty = part.sum == 0;  // its largest may be -inf
    if (!empty) sum += part.sum * std::exp(static_cast<double>(part.largest) - largest);
  }
  if (sum == 0) return -std::numeric_limits<float>::infinity();
  return static_cast<float>(std::log(sum) + largest);
}

// The vocabulary in tiles: the products of a tile with all rows, then their sums, are made while
// they are in the cache. parts, member_parts: [tiles][rows]; members: null or [vocabulary], padded.
void SumTiles(const PanelProducts& products, int64_t rows, const PackedOutputLayer& output,
              const uint8_t* members, PartialSum* parts, PartialSum* member_parts) {
  const int64_t vocabulary = output.weight->out_features();
  const int64_t tiles = (vocabulary + kTileTokens - 1) / kTileTokens;
  const auto sum_exp = CurrentLinearKernels().sum_exp;
  const LogitRule rule = RuleOf(output);
  ParallelFor(0, tiles, 1, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> logits;
    logits.resize(std::max<size_t>(logits.size(), rows * kTileTokens));
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTileTokens;
      const int64_t tokens = std::min(kTileTokens, vocabulary - first);
      products.Compute(first / kPanelOutputs, PanelsOf(tokens), logits.data(), kTileTokens);
      for (int64_t row = 0; row < rows; ++row) {
        sum_exp(logits.data() + row * kTileTokens, tokens, rule,
                members ? members + first : nullptr, parts + tile * rows + row,
                member_parts + tile * rows + row);
      }
    }
  });
}

std::pair<at::Tensor, at::Tensor> Normalizers(const at::Tensor& hidden, const uint8_t* members,
                                              const PackedOutputLayer& output) {
  const int64_t rows = hidden.size(0), vocabulary = output.weight->out_features();
  const int64_t tiles = (vocabulary + kTileTokens - 1) / kTileTokens;
  at::Tensor all = at::empty({rows}, at::kFloat);
  at::Tensor of_members = at::empty({members ? rows : 0}, at::kFloat);
  if (rows == 0) return {all, of_members};
  const at::Tensor x = hidden.contiguous();
  std::vector<PartialSum> parts(tiles * rows), member_parts(members ? tiles * rows : 0);
  const PanelProducts products(*output.weight, x.const_data_ptr<float>(), rows);
  SumTiles(products, rows, output, members, parts.data(), member_parts.data());
  for (int64_t row = 0; row < rows; ++row) {
    all.data_ptr<float>()[row] = LogOfSum(parts.data() + row, tiles, rows);
    if (members) {
      of_members.data_ptr<float>()[row] = LogOfSum(member_parts.data() + row, tiles, rows);
    }
  }
  return {all, of_members};
}

float Dot(const float* x, const float* weights, int64_t n) {
  double sums[4] = {};
  for (int64_t i = 0; i < n; ++i) sums[i % 4] += static_cast<double>(x[i]) * weights[i];
  return static_cast<float>(sums[0] + sums[1] + sums[2] + sums[3]);
}

float LogitOf(float product, const LogitRule& rule) {
  const float logit = product * rule.scale;
  return rule.softcap == 0 ? logit : rule.softcap * std::tanh(logit / rule.softcap);
}

}  // namespace

at::Tensor LogNormalizer(const at::Tensor& hidden, const PackedOutputLayer& output) {
  CheckHidden("log_normalizer", hidden, output);
  return Normalizers(hidden, nullptr, output).first;
}

std::pair<at::Tensor, at::Tensor> LogNormalizers(const at::Tensor& hidden,
                                                 const PackedOutputLayer& output,
                                                 const at::Tensor& subset) {
  CheckHidden("log_normalizers", hidden, output);
  const int64_t vocabulary = output.weight->out_features();
  TORCH_CHECK(subset.dim() == 1 && subset.numel() == vocabulary && subset.device().is_cpu() &&
                  (subset.scalar_type() == at::kByte || subset.scalar_type() == at::kBool),
              "log_normalizers: one uint8 or bool a word of ", vocabulary, " expected, got ",
              subset.sizes(), " of ", subset.dtype());
  // Kernels read sixteen at a time.
  std::vector<uint8_t> padded(PanelsOf(vocabulary) * kPanelOutputs);
  const at::Tensor contiguous = subset.contiguous();
  const auto* bytes = static_cast<const uint8_t*>(contiguous.const_data_ptr());
  std::transform(bytes, bytes + vocabulary, padded.begin(),
                 [](uint8_t byte) { return static_cast<uint8_t>(byte != 0); });
  return Normalizers(hidden, padded.data(), output);
}

at::Tensor TokenLogits(const at::Tensor& hidden, const at::Tensor& rows, const at::Tensor& tokens,
                       const PackedOutputLayer& output) {
  CheckHidden("token_logits", hidden, output);
  TORCH_CHECK(rows.dim() == 1 && tokens.sizes() == rows.sizes() &&
                  rows.scalar_type() == at::kLong && tokens.scalar_type() == at::kLong,
              "token_logits: rows and tokens int64 [M] expected, got ", rows.sizes(), " and ",
              tokens.sizes());
  const PackedMatrix& weight = *output.weight;
  const int64_t in = weight.in_features(), count = rows.numel();
  const at::Tensor row_ids = rows.contiguous(), token_ids = tokens.contiguous();
  const int64_t* row = row_ids.const_data_ptr<int64_t>();
  const int64_t* token = token_ids.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    TORCH_CHECK_INDEX(
        row[i] >= 0 && row[i] < hidden.size(0) && token[i] >= 0 && token[i] < weight.out_features(),
        "token_logits: row ", row[i], " of ", hidden.size(0), ", token ", token[i], " of ",
        weight.out_features());
  }
  // Of all hidden states, those asked for: there may be many more, and they are rounded.
  const auto [asked, row_of] = at::_unique(row_ids, /*sorted=*/true, /*return_inverse=*/true);
  const at::Tensor x = hidden.index_select(0, asked);
  RoundActivations(weight.compute(), x.data_ptr<float>(), x.size(0), in);
  row = row_of.const_data_ptr<int64_t>();
  at::Tensor logits = at::empty({count}, at::kFloat);
  const LogitRule rule = RuleOf(output);
  const float* bias = weight.bias() ? weight.bias()->const_data_ptr<float>() : nullptr;
  ParallelFor(0, count, 8, [&](int64_t begin, int64_t end) {
    std::vector<float> weights(in);
    for (int64_t i = begin; i < end; ++i) {
      ReadRow(weight.panel_format(), weight.panels().const_data_ptr<uint8_t>(), in, token[i],
              weights.data());
      const float product = Dot(x.const_data_ptr<float>() + row[i] * in, weights.data(), in);
      logits.data_ptr<float>()[i] = LogitOf(product + (bias ? bias[token[i]] : 0), rule);
    }
  });
  return logits;
}

}  // namespace lmfusion
