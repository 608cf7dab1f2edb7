#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>

namespace lmfusion {

// From a final hidden state to the logits x of all words: x = scale * (hidden . row + bias), then
// softcap * tanh(x / softcap) where softcap is not 0.
struct OutputLayer {
  at::Tensor weight;               // [vocabulary, hidden_size]
  std::optional<at::Tensor> bias;  // [vocabulary]
  double scale = 1;
  double softcap = 0;
};

// log sum exp of the logits of each row of hidden [N, hidden_size], in nats: [N] float32. Works
// through the vocabulary in tiles; [N, vocabulary] never exists.
at::Tensor LogNormalizer(const at::Tensor& hidden, const OutputLayer& output);

// The same over all tokens, and over those that `subset` [vocabulary] bool names: ([N], [N]).
std::pair<at::Tensor, at::Tensor> LogNormalizers(const at::Tensor& hidden,
                                                 const OutputLayer& output,
                                                 const at::Tensor& subset);

// The logit of one token a row: hidden [N, hidden_size], tokens [N] int64 -> [N] float32.
at::Tensor TokenLogits(const at::Tensor& hidden, const at::Tensor& tokens,
                       const OutputLayer& output);

}  // namespace lmfusion
