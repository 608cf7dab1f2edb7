#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lmfusion {

// What slots hold as bytes, a row a slot: its keys and values [layers, 2, kv_heads, head_dim],
// then its hidden state [hidden_size], in the types and on the device of
// kv [layers, 2, slots, kv_heads, head_dim] and hidden [slots, hidden_size].
void ReadSlotRows(const at::Tensor& kv, const at::Tensor& hidden, const std::vector<int32_t>& slots,
                  char* bytes);
void WriteSlotRows(const at::Tensor& kv, const at::Tensor& hidden,
                   const std::vector<int32_t>& slots, const char* bytes);

}  // namespace lmfusion
