#include "ops/fused_ops.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "kernels/simd/clones.h"
#include "kernels/simd/fast_exp.h"
#include "kernels/threads/parallel.h"
#include "ops/definitions/definitions.h"

namespace lmfusion {
namespace {

constexpr int64_t kGrainElements = 1 << 15;  // of one piece of work

int64_t RowsAPiece(int64_t width) {
  return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, width));
}

// y = (x - mean) * scale * weight
LMFUSION_INLINE void ScaleRow(const float* x, float mean, float scale, const float* weight,
                              int64_t n, float* y) {
  if (weight == nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * scale;
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * scale * weight[i];
  }
}

LMFUSION_CLONES
void AddRow(const float* x, int64_t n, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

LMFUSION_CLONES
void RotateHalves(const float* x, const float* cos, const float* sin, int64_t half, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    y[i] = x[i] * cos[i] - x[half + i] * sin[i];
    y[half + i] = x[half + i] * cos[half + i] + x[i] * sin[half + i];
  }
}

LMFUSION_CLONES
void RotatePairs(const float* x, const float* cos, const float* sin, int64_t half, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float even = x[2 * i], odd = x[2 * i + 1];
    y[2 * i] = even * cos[2 * i] - odd * sin[2 * i];
    y[2 * i + 1] = odd * cos[2 * i + 1] + even * sin[2 * i + 1];
  }
}

}  // namespace

LMFUSION_CLONES
void NormalizeRow(const float* x, const RowNorm& norm, int64_t n, float* y) {
  float mean = 0;
  if (norm.centered) {
#pragma omp simd reduction(+ : mean)
    for (int64_t i = 0; i < n; ++i) mean += x[i];
    mean /= static_cast<float>(n);
  }
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += (x[i] - mean) * (x[i] - mean);
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(n) + norm.epsilon);
  ScaleRow(x, mean, scale, norm.weight, n, y);
  if (norm.bias != nullptr) AddRow(norm.bias, n, y);
}

void RotateHead(const float* x, const HeadRotation& rotation, int64_t dim, float* y) {
  const auto rotate = rotation.interleaved ? RotatePairs : RotateHalves;
  rotate(x, rotation.cos, rotation.sin, rotation.n / 2, y);
  std::copy(x + rotation.n, x + dim, y + rotation.n);
}

namespace {

LMFUSION_INLINE float Silu(float x) { return x / (1.0f + FastExp(-x)); }

LMFUSION_INLINE float Gelu(float x) {
  constexpr float kTwiceRoot = 1.5957691216057308f;  // 2 * sqrt(2 / pi)
  return x / (1.0f + FastExp(-kTwiceRoot * (x + 0.044715f * x * x * x)));
}

LMFUSION_CLONES
void SiluMulRow(const float* gate, const float* up, int64_t n, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = Silu(gate[i]) * up[i];
}

LMFUSION_CLONES
void GeluTanhMulRow(const float* gate, const float* up, int64_t n, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = Gelu(gate[i]) * up[i];
}

LMFUSION_CLONES
void GeluTanhRow(const float* x, int64_t n, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = Gelu(x[i]);
}

void CheckFloat(const char* name, const at::Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.device().is_cpu() && x.dim() > 0, name,
              ": float32 on the CPU expected, got ", x.toString(), " ", x.sizes());
}

// The rows of a tensor, its leading dimensions joined.
struct Rows {
  // Without a copy where rows are evenly spaced, and without a view where nothing lies between.
  explicit Rows(const at::Tensor& x) : memory(x), width(x.size(-1)), stride(width) {
    if (!x.is_contiguous()) {
      memory = x.dim() > 1 ? x.flatten(0, -2) : x.unsqueeze(0);
      if (memory.stride(1) != 1 && width > 1) memory = memory.contiguous();
      stride = memory.stride(0);
    }
    count = width == 0 ? 0 : memory.numel() / width;
    data = memory.const_data_ptr<float>();
  }

  at::Tensor memory;
  int64_t width, stride, count;
  const float* data;
};

// Whether a gate can be applied row by row; false where one of the two is broadcast.
bool AreRows(const at::Tensor& gate, const at::Tensor& up, const GateColumns& columns) {
  if (gate.scalar_type() != at::kFloat || up.scalar_type() != at::kFloat || gate.dim() < 2) {
    return false;
  }
  return columns.width < 0 ? gate.sizes() == up.sizes()
                           : gate.sizes().slice(0, gate.dim() - 1) ==
                                 up.sizes().slice(0, std::max<int64_t>(1, up.dim()) - 1);
}

at::Tensor Columns(const at::Tensor& x, int64_t begin, const GateColumns& columns) {
  return columns.width < 0 ? x : x.narrow(-1, begin, columns.width);
}

// `row_of(x row, width, result row, number of the row)` for every row.
template <class RowOf>
at::Tensor ByRows(const at::Tensor& x, RowOf row_of) {
  const Rows in(x);
  at::Tensor out = at::empty(x.sizes(), x.options());
  float* to = out.data_ptr<float>();
  ParallelFor(0, in.count, RowsAPiece(in.width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      row_of(in.data + row * in.stride, in.width, to + row * in.width, row);
    }
  });
  return out;
}

template <class Row>
at::Tensor Gated(const at::Tensor& gate, const at::Tensor& up, const GateColumns& columns,
                 Row gate_row) {
  const Rows g(gate), u = up.is_same(gate) ? g : Rows(up);
  const int64_t width = columns.width < 0 ? g.width : columns.width;
  TORCH_CHECK(columns.gate_begin >= 0 && columns.gate_begin + width <= g.width &&
                  columns.up_begin >= 0 && columns.up_begin + width <= u.width,
              "gate: columns ", columns.gate_begin, " and ", columns.up_begin, " of width ", width,
              " do not lie in ", gate.sizes(), " and ", up.sizes());
  std::vector<int64_t> sizes = gate.sizes().vec();
  sizes.back() = width;
  at::Tensor out = at::empty(sizes, gate.options());
  const float* gates = g.data + columns.gate_begin;
  const float* ups = u.data + columns.up_begin;
  float* to = out.data_ptr<float>();
  ParallelFor(0, g.count, RowsAPiece(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      gate_row(gates + row * g.stride, ups + row * u.stride, width, to + row * width);
    }
  });
  return out;
}

at::Tensor Dense(const char* name, const std::optional<at::Tensor>& numbers, int64_t width) {
  if (!numbers) return {};
  TORCH_CHECK(
      numbers->dim() == 1 && numbers->numel() == width && numbers->scalar_type() == at::kFloat,
      "normalize: float32 ", name, " [", width, "] expected, got ", numbers->sizes());
  return numbers->contiguous();
}

}  // namespace

at::Tensor Normalize(const at::Tensor& x, const Norm& norm,
                     const std::optional<at::Tensor>& residual) {
  CheckFloat("normalize", x);
  if (residual && (residual->sizes() != x.sizes() || residual->scalar_type() != at::kFloat)) {
    return Normalize(x, norm) + *residual;
  }
  const int64_t width = x.size(-1);
  const at::Tensor weight = Dense("weights", norm.weight, width);
  const at::Tensor bias = Dense("biases", norm.bias, width);
  const at::Tensor added = residual ? residual->contiguous() : at::Tensor();
  const RowNorm row_norm{weight.defined() ? weight.const_data_ptr<float>() : nullptr,
                         bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                         static_cast<float>(norm.epsilon), norm.centered};
  const float* addends = residual ? added.const_data_ptr<float>() : nullptr;
  return ByRows(x, [&](const float* from, int64_t n, float* to, int64_t row) {
    NormalizeRow(from, row_norm, n, to);
    if (addends) AddRow(addends + row * n, n, to);
  });
}

at::Tensor Rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                  bool interleaved) {
  CheckFloat("rotate", x);
  CheckFloat("rotate", cos);
  TORCH_CHECK(x.dim() == 4 && x.size(0) == 1, "rotate: x ", x.sizes());
  const int64_t heads = x.size(1), tokens = x.size(2), dim = x.size(3), n = cos.size(-1);
  TORCH_CHECK(n % 2 == 0 && n <= dim && cos.numel() == tokens * n && sin.sizes() == cos.sizes() &&
                  sin.scalar_type() == at::kFloat,
              "rotate: cos ", cos.sizes(), " and sin ", sin.sizes(), " do not fit x ", x.sizes());
  const at::Tensor in = x.stride(3) == 1 ? x : x.contiguous();
  const at::Tensor c = cos.contiguous(), s = sin.contiguous();
  at::Tensor out = at::empty({1, tokens, heads, dim}, x.options());
  const float* from = in.const_data_ptr<float>();
  const float* cosines = c.const_data_ptr<float>();
  const float* sines = s.const_data_ptr<float>();
  float* to = out.data_ptr<float>();
  ParallelFor(0, tokens, RowsAPiece(heads * dim), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const HeadRotation rotation{cosines + t * n, sines + t * n, n, interleaved};
      for (int64_t h = 0; h < heads; ++h) {
        RotateHead(from + h * in.stride(1) + t * in.stride(2), rotation, dim,
                   to + (t * heads + h) * dim);
      }
    }
  });
  return out.transpose(1, 2);
}

at::Tensor GeluTanh(const at::Tensor& x) {
  CheckFloat("gelu_tanh", x);
  return ByRows(x,
                [](const float* from, int64_t n, float* to, int64_t) { GeluTanhRow(from, n, to); });
}

at::Tensor SiluMul(const at::Tensor& gate, const at::Tensor& up, const GateColumns& columns) {
  if (AreRows(gate, up, columns)) return Gated(gate, up, columns, SiluMulRow);
  return at::silu(Columns(gate, columns.gate_begin, columns)) *
         Columns(up, columns.up_begin, columns);
}

at::Tensor GeluTanhMul(const at::Tensor& gate, const at::Tensor& up, const GateColumns& columns) {
  if (AreRows(gate, up, columns)) return Gated(gate, up, columns, GeluTanhMulRow);
  return at::gelu(Columns(gate, columns.gate_begin, columns), "tanh") *
         Columns(up, columns.up_begin, columns);
}

at::Tensor NormalizeOp(const at::Tensor& x, const std::optional<at::Tensor>& weight,
                       const std::optional<at::Tensor>& bias,
                       const std::optional<at::Tensor>& residual, double epsilon, bool centered) {
  return Normalize(x, {weight, bias, epsilon, centered}, residual);
}

at::Tensor GateOp(const at::Tensor& x, const std::optional<at::Tensor>& up,
                  c10::string_view activation, int64_t begin, int64_t up_begin, int64_t width) {
  const GateColumns columns{begin, up_begin, width};
  if (up && AreRows(x, *up, columns)) {
    if (activation == "silu") return Gated(x, *up, columns, SiluMulRow);
    if (activation == "gelu_tanh") return Gated(x, *up, columns, GeluTanhMulRow);
  }
  if (!up && activation == "gelu_tanh" && x.scalar_type() == at::kFloat) {
    return GeluTanh(Columns(x, begin, columns));
  }
  return GateByDefinition(x, up, activation, begin, up_begin, width);
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def("rotate(Tensor x, Tensor cos, Tensor sin, bool interleaved) -> Tensor", &Rotate);
  m.def("gelu_tanh(Tensor x) -> Tensor", &GeluTanh);
  const auto with_columns = [](auto gate) {
    return [gate](const at::Tensor& x, const at::Tensor& up, int64_t gate_begin, int64_t up_begin,
                  int64_t width) {
      return gate(x, up, GateColumns{gate_begin, up_begin, width});
    };
  };
  m.def(
      "silu_mul(Tensor gate, Tensor up, int gate_begin=0, int up_begin=0, int width=-1) -> Tensor",
      with_columns(&SiluMul));
  m.def(
      "gelu_tanh_mul(Tensor gate, Tensor up, int gate_begin=0, int up_begin=0, int width=-1) "
      "-> Tensor",
      with_columns(&GeluTanhMul));
}

TORCH_LIBRARY_IMPL(lmfusion, CPU, m) {
  m.impl("normalize", &NormalizeOp);
  m.impl("gate", &GateOp);
}

}  // namespace lmfusion
