#pragma once

#include <cstdint>

#include "kernels/linear/packed_weight.h"
#include "kernels/output/logit_kernels.h"

namespace lmfusion {

// The output layer of a language model: its matrix, one output a word, and what logits are made of.
struct PackedOutput {
  const PackedWeight& weight;
  LogitRule rule;
};

// log sum exp of all logits of each hidden state [rows, in]: all [rows], nats. Where there are
// `members` [vocabulary] (not 0: a member), the same over those: of_members [rows], -inf where
// there is none. Works through the vocabulary in tiles; [rows, vocabulary] never exists.
void LogNormalizers(const PackedOutput& output, const float* hidden, int64_t rows,
                    const uint8_t* members, float* all, float* of_members);

// The logits of pairs: hidden[rows[i]] with the word tokens[i]: logits [count]. hidden [., in] is
// rounded in place, as the products of this weight round it. Only the rows of the matrix that are
// named are read.
void TokenLogits(const PackedOutput& output, float* hidden, int64_t hidden_rows,
                 const int64_t* rows, const int64_t* tokens, int64_t count, float* logits);

}  // namespace lmfusion
