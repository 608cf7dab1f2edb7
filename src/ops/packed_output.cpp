#include "ops/packed_output.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "kernels/output/packed_output.h"
#include "ops/float_rows.h"
#include "ops/pooled_floats.h"

namespace lmfusion {
namespace {

void CheckHidden(const char* name, const at::Tensor& hidden, const PackedOutputLayer& output) {
  TORCH_CHECK(output.weight, name, ": no output matrix");
  TORCH_CHECK(hidden.dim() == 2 && hidden.size(1) == output.weight->in_features() &&
                  hidden.scalar_type() == at::kFloat && hidden.device().is_cpu(),
              name, ": float32 hidden states [N, ", output.weight->in_features(),
              "] on the CPU expected, got ", hidden.sizes(), " of ", hidden.dtype());
}

PackedOutput OutputOf(const PackedOutputLayer& layer) {
  return {layer.weight->weight(),
          {static_cast<float>(layer.scale), static_cast<float>(layer.softcap)}};
}

}  // namespace

at::Tensor LogNormalizer(const at::Tensor& hidden, const PackedOutputLayer& output) {
  CheckHidden("log_normalizer", hidden, output);
  at::Tensor all = at::empty({hidden.size(0)}, at::kFloat);
  LogNormalizers(OutputOf(output), hidden.contiguous().const_data_ptr<float>(), hidden.size(0),
                 nullptr, all.data_ptr<float>(), nullptr);
  return all;
}

std::pair<at::Tensor, at::Tensor> LogNormalizers(const at::Tensor& hidden,
                                                 const PackedOutputLayer& output,
                                                 const at::Tensor& subset) {
  CheckHidden("log_normalizers", hidden, output);
  const int64_t rows = hidden.size(0), vocabulary = output.weight->out_features();
  TORCH_CHECK(subset.dim() == 1 && subset.numel() == vocabulary && subset.device().is_cpu() &&
                  (subset.scalar_type() == at::kByte || subset.scalar_type() == at::kBool),
              "log_normalizers: one uint8 or bool a word of ", vocabulary, " expected, got ",
              subset.sizes(), " of ", subset.dtype());
  at::Tensor all = at::empty({rows}, at::kFloat), of_members = at::empty({rows}, at::kFloat);
  const at::Tensor x = hidden.contiguous(), members = subset.contiguous();
  LogNormalizers(OutputOf(output), x.const_data_ptr<float>(), rows,
                 static_cast<const uint8_t*>(members.const_data_ptr()), all.data_ptr<float>(),
                 of_members.data_ptr<float>());
  return {all, of_members};
}

at::Tensor TokenLogits(const at::Tensor& hidden, const at::Tensor& rows, const at::Tensor& tokens,
                       const PackedOutputLayer& output) {
  CheckHidden("token_logits", hidden, output);
  TORCH_CHECK(rows.dim() == 1 && tokens.sizes() == rows.sizes() &&
                  rows.scalar_type() == at::kLong && tokens.scalar_type() == at::kLong,
              "token_logits: rows and tokens int64 [M] expected, got ", rows.sizes(), " and ",
              tokens.sizes());
  const int64_t count = rows.numel(), vocabulary = output.weight->out_features();
  const at::Tensor row_ids = rows.contiguous(), token_ids = tokens.contiguous();
  const int64_t* row = row_ids.const_data_ptr<int64_t>();
  const int64_t* token = token_ids.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < count; ++i) {
    TORCH_CHECK_INDEX(
        row[i] >= 0 && row[i] < hidden.size(0) && token[i] >= 0 && token[i] < vocabulary,
        "token_logits: row ", row[i], " of ", hidden.size(0), ", token ", token[i], " of ",
        vocabulary);
  }
  // Of all hidden states, those asked for: there may be many more, and they are rounded.
  std::unordered_map<int64_t, int64_t> places;
  std::vector<int64_t> place(count);
  for (int64_t i = 0; i < count; ++i) {
    place[i] = places.try_emplace(row[i], static_cast<int64_t>(places.size())).first->second;
  }
  const int64_t width = hidden.size(1);
  at::Tensor x = EmptyFloats({static_cast<int64_t>(places.size()), width});
  const FloatRows from(hidden);
  for (const auto& [asked, to] : places) {
    std::copy_n(from.data + asked * from.stride, width, x.data_ptr<float>() + to * width);
  }
  at::Tensor logits = at::empty({count}, at::kFloat);
  TokenLogits(OutputOf(output), x.data_ptr<float>(), x.size(0), place.data(), token, count,
              logits.data_ptr<float>());
  return logits;
}

}  // namespace lmfusion
