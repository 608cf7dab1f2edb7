#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/string_view.h>

#include <cstdint>
#include <optional>

#include "kernels/rows/rows.h"

namespace lmfusion {

// "silu", "gelu", "gelu_tanh", "relu" or "clamped_silu"; see definitions/gate.cpp.
std::optional<Activation> ActivationNamed(c10::string_view name);

// lmfusion::gate on the CPU: by the kernels of kernels/rows/rows.h, and by its definition
// (definitions/gate.cpp) for what is not float32, or broadcast.
at::Tensor GateOnCpu(const at::Tensor& x, const std::optional<at::Tensor>& up,
                     c10::string_view activation, int64_t begin, int64_t up_begin, int64_t width);

}  // namespace lmfusion
