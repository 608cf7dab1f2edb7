#include "ops/fused_ops.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "ops/clones.h"
#include "ops/fast_exp.h"
#include "ops/parallel.h"

namespace lmfusion {
namespace {

constexpr int64_t kGrainElements = 1 << 15;  // of one piece of work

int64_t RowsAPiece(int64_t width) { return std::max<int64_t>(1, kGrainElements / width); }

}  // namespace

LMFUSION_CLONES
void NormalizeRow(const float* x, const float* weight, int64_t n, float epsilon, float* y) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(n) + epsilon);
  if (weight == nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale;
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale * weight[i];
  }
}

LMFUSION_CLONES
void RotateRow(const float* x, const float* cos, const float* sin, int64_t half, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    y[i] = x[i] * cos[i] - x[half + i] * sin[i];
    y[half + i] = x[half + i] * cos[half + i] + x[i] * sin[half + i];
  }
}

namespace {

LMFUSION_CLONES
void SiluMulRow(const float* gate, const float* up, int64_t n, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] / (1.0f + FastExp(-gate[i])) * up[i];
}

LMFUSION_CLONES
void GeluTanhMulRow(const float* gate, const float* up, int64_t n, float* y) {
  constexpr float kTwiceRoot = 1.5957691216057308f;  // 2 * sqrt(2 / pi)
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float x = gate[i];
    y[i] = x / (1.0f + FastExp(-kTwiceRoot * (x + 0.044715f * x * x * x))) * up[i];
  }
}

void CheckFloat(const char* name, const at::Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.device().is_cpu() && x.dim() > 0, name,
              ": float32 on the CPU expected, got ", x.toString(), " ", x.sizes());
}

// `x` with its leading dimensions joined, without a copy where its rows are evenly spaced.
at::Tensor Rows(const at::Tensor& x) {
  const at::Tensor rows = x.dim() == 3 && x.size(0) == 1 ? x.squeeze(0) : x.flatten(0, -2);
  return rows.stride(1) == 1 || rows.size(1) == 1 ? rows : rows.contiguous();
}

// Whether a gate can be applied row by row; false where one of the two is broadcast.
bool AreRows(const at::Tensor& gate, const at::Tensor& up) {
  return gate.scalar_type() == at::kFloat && up.scalar_type() == at::kFloat && gate.dim() >= 2 &&
         gate.sizes() == up.sizes();
}

template <class Row>
at::Tensor Gated(const at::Tensor& gate, const at::Tensor& up, Row gate_row) {
  const at::Tensor g = Rows(gate), u = Rows(up);
  at::Tensor out = at::empty(gate.sizes(), gate.options());
  const int64_t rows = g.size(0), width = g.size(1);
  const float* gates = g.const_data_ptr<float>();
  const float* ups = u.const_data_ptr<float>();
  float* to = out.data_ptr<float>();
  ParallelFor(0, rows, RowsAPiece(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      gate_row(gates + row * g.stride(0), ups + row * u.stride(0), width, to + row * width);
    }
  });
  return out;
}

}  // namespace

at::Tensor RmsNormalize(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                        double epsilon) {
  CheckFloat("rms_normalize", x);
  const at::Tensor in = x.contiguous();
  at::Tensor out = at::empty(in.sizes(), in.options());
  const int64_t width = in.size(-1), rows = in.numel() / std::max<int64_t>(1, width);
  TORCH_CHECK(!weight || (weight->dim() == 1 && weight->numel() == width &&
                          weight->scalar_type() == at::kFloat),
              "rms_normalize: float32 weights [", width, "] expected");
  const at::Tensor dense = weight ? weight->contiguous() : at::Tensor();
  const float* weights = weight ? dense.const_data_ptr<float>() : nullptr;
  const float* from = in.const_data_ptr<float>();
  float* to = out.data_ptr<float>();
  ParallelFor(0, rows, RowsAPiece(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      NormalizeRow(from + row * width, weights, width, static_cast<float>(epsilon),
                   to + row * width);
    }
  });
  return out;
}

at::Tensor RotateHalf(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  CheckFloat("rotate_half", x);
  TORCH_CHECK(x.dim() == 4 && x.size(0) == 1 && x.size(3) % 2 == 0, "rotate_half: x ", x.sizes());
  const int64_t heads = x.size(1), tokens = x.size(2), width = x.size(3);
  TORCH_CHECK(cos.numel() == tokens * width && sin.numel() == cos.numel(), "rotate_half: cos ",
              cos.sizes(), " does not fit x ", x.sizes());
  const at::Tensor in = x.stride(3) == 1 ? x : x.contiguous();
  const at::Tensor c = cos.contiguous(), s = sin.contiguous();
  at::Tensor out = at::empty({1, tokens, heads, width}, x.options());
  const float* from = in.const_data_ptr<float>();
  const int64_t head_stride = in.stride(1), token_stride = in.stride(2);
  const float* cosines = c.const_data_ptr<float>();
  const float* sines = s.const_data_ptr<float>();
  float* to = out.data_ptr<float>();
  ParallelFor(0, tokens, RowsAPiece(heads * width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        RotateRow(from + h * head_stride + t * token_stride, cosines + t * width,
                  sines + t * width, width / 2, to + (t * heads + h) * width);
      }
    }
  });
  return out.transpose(1, 2);
}

at::Tensor SiluMul(const at::Tensor& gate, const at::Tensor& up) {
  if (!AreRows(gate, up)) return at::silu(gate) * up;
  return Gated(gate, up, SiluMulRow);
}

at::Tensor GeluTanhMul(const at::Tensor& gate, const at::Tensor& up) {
  if (!AreRows(gate, up)) return at::gelu(gate, "tanh") * up;
  return Gated(gate, up, GeluTanhMulRow);
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def("rms_normalize(Tensor x, Tensor? weight, float epsilon) -> Tensor", &RmsNormalize);
  m.def("rotate_half(Tensor x, Tensor cos, Tensor sin) -> Tensor", &RotateHalf);
  m.def("silu_mul(Tensor gate, Tensor up) -> Tensor", &SiluMul);
  m.def("gelu_tanh_mul(Tensor gate, Tensor up) -> Tensor", &GeluTanhMul);
}

}  // namespace lmfusion
