#pragma once

#include <cstdint>

#include "kernels/output/log_sum.h"
#include "kernels/simd/instruction_set.h"

namespace lmfusion {

// What logits are made of: softcap * tanh(scale * product / softcap); 0: no cap.
struct LogitRule {
  float scale, softcap;
};

struct LogitKernels {
  // Applies the rule to products [n] in place and sums; `members` (null: none) says which [n]
  // belong to the second sum. Products and members are readable, and products writable, up to the
  // next multiple of sixteen.
  void (*sum_exp)(float* products, int64_t n, const LogitRule& rule, const uint8_t* members,
                  LogSum* all, LogSum* of_members);
};
LMFUSION_KERNELS(LogitKernels)

}  // namespace lmfusion
