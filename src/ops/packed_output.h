#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

#include "ops/packed_linear.h"

namespace lmfusion {

// From a final hidden state to the logits x of all words: x = scale * (hidden . row + bias), then
// softcap * tanh(x / softcap) where softcap is not 0. Computed in the type of the matrix.
struct PackedOutputLayer {
  c10::intrusive_ptr<PackedMatrix> weight;  // [vocabulary, hidden_size], with its bias
  double scale = 1;
  double softcap = 0;
};

// log sum exp of the logits of each row of hidden [N, hidden_size] float32, in nats: [N] float32.
at::Tensor LogNormalizer(const at::Tensor& hidden, const PackedOutputLayer& output);

// Also that over the tokens that `subset` [vocabulary] (uint8 or bool) names, in the same pass:
// ([N], [N]), -inf where it names none.
std::pair<at::Tensor, at::Tensor> LogNormalizers(const at::Tensor& hidden,
                                                 const PackedOutputLayer& output,
                                                 const at::Tensor& subset);

// The logits of M pairs: hidden[rows[i]] with tokens[i]. rows, tokens [M] int64 -> [M] float32.
at::Tensor TokenLogits(const at::Tensor& hidden, const at::Tensor& rows, const at::Tensor& tokens,
                       const PackedOutputLayer& output);

}  // namespace lmfusion
