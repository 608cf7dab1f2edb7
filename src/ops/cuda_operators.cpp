// The operators for tensors on a CUDA device: shapes are checked here, kernels launched through
// plain functions, so that nvcc reads no header of torch.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <algorithm>

#include "kernels/output/output_launch.h"
#include "ops/narrow_weights.h"
#include "ops/tree_attention_tiles.h"

namespace lmfusion {
namespace {

// Numbers of the largest tile of logits that is held at once (64 MB of float32).
constexpr int64_t kTileNumbers = int64_t{1} << 24;

void* Stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

void Check(const char* name, const char* error) {
  TORCH_CHECK(error == nullptr, name, ": ", error);
}

int Capability() {
  const cudaDeviceProp* properties = at::cuda::getCurrentDeviceProperties();
  return properties->major * 10 + properties->minor;
}

NumberType TypeOf(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return NumberType::kFloat32;
    case at::kHalf: return NumberType::kFloat16;
    case at::kBFloat16: return NumberType::kBFloat16;
    default:
      TORCH_CHECK(false, "output layer of type ", tensor.scalar_type(),
                  "; float32, float16 or bfloat16 expected");
  }
}

at::Tensor TreeAttention(const TreeAttentionArguments& arguments) {
  const at::Tensor& queries = arguments.queries;
  const c10::cuda::CUDAGuard guard(queries.device());
  const at::Tensor output = at::empty(queries.sizes(), queries.options());
  at::Tensor parts;
  const TiledAttention tiles = TilesOf(arguments, output, &parts);
  Check("tree_attention", LaunchTreeAttention(tiles, Capability(), Stream()));
  return output;
}

OutputFormula FormulaOf(const std::optional<at::Tensor>& bias, double scale, double softcap) {
  OutputFormula formula;
  if (bias) formula.bias = bias->const_data_ptr<float>();
  formula.scale = static_cast<float>(scale);
  formula.softcap = static_cast<float>(softcap);
  return formula;
}

at::Tensor LogNormalizers(const at::Tensor& hidden, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias,
                          const std::optional<at::Tensor>& subset, double scale, double softcap) {
  const c10::cuda::CUDAGuard guard(hidden.device());
  const int64_t rows = hidden.size(0), vocabulary = weight.size(0);
  const auto options = hidden.options().dtype(at::kFloat);
  const at::Tensor results = at::empty({subset ? 2 : 1, rows}, options);
  const at::Tensor sums = at::empty({2, rows, 2}, options);
  const std::optional<at::Tensor> bias32 =
      bias ? std::optional<at::Tensor>(bias->to(at::kFloat).contiguous()) : std::nullopt;
  const int64_t words =
      std::min(vocabulary, std::max<int64_t>(kTileNumbers / std::max<int64_t>(rows, 1), 1024));
  for (int64_t begin = 0; begin < vocabulary; begin += words) {
    const int64_t end = std::min(begin + words, vocabulary);
    const at::Tensor products = ProductsInFloat32(hidden, weight.slice(0, begin, end)).contiguous();
    VocabularyTile tile;
    tile.products = products.const_data_ptr<float>();
    tile.words = end - begin;
    tile.first_word = begin;
    tile.formula = FormulaOf(bias32, scale, softcap);
    tile.subset = subset ? subset->const_data_ptr<bool>() : nullptr;
    tile.sums = static_cast<LogSum*>(sums.data_ptr());
    tile.rows = rows;
    tile.results = end == vocabulary ? results.data_ptr<float>() : nullptr;
    Check("log_normalizers", LaunchAddTile(tile, Stream()));
  }
  return results;
}

at::Tensor TokenLogits(const at::Tensor& hidden, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, const at::Tensor& tokens,
                       double scale, double softcap) {
  const c10::cuda::CUDAGuard guard(hidden.device());
  const at::Tensor narrow = hidden.to(weight.scalar_type()).contiguous();
  const at::Tensor ids = tokens.to(at::kLong).contiguous(), matrix = weight.contiguous();
  const std::optional<at::Tensor> bias32 =
      bias ? std::optional<at::Tensor>(bias->to(at::kFloat).contiguous()) : std::nullopt;
  const at::Tensor results = at::empty({hidden.size(0)}, hidden.options().dtype(at::kFloat));
  RowLogits rows;
  rows.hidden = narrow.const_data_ptr();
  rows.weight = matrix.const_data_ptr();
  rows.hidden_type = rows.weight_type = TypeOf(matrix);
  rows.tokens = ids.const_data_ptr<int64_t>();
  rows.formula = FormulaOf(bias32, scale, softcap);
  rows.results = results.data_ptr<float>();
  rows.rows = hidden.size(0);
  rows.size = hidden.size(1);
  Check("token_logits", LaunchRowLogits(rows, Stream()));
  return results;
}

at::Tensor Dequantize(const at::Tensor& values, const at::Tensor& scales) {
  const c10::cuda::CUDAGuard guard(values.device());
  const at::Tensor result =
      at::empty({values.size(0), 2 * values.size(1)}, values.options().dtype(at::kBFloat16));
  Check("dequantize", LaunchDequantize(MatrixOf(values, scales, result), Stream()));
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(lmfusion, CUDA, m) {
  m.impl("tree_attention", &TreeAttentionOperator<&TreeAttention>);
  m.impl("log_normalizers", &LogNormalizers);
  m.impl("token_logits", &TokenLogits);
  m.impl("dequantize", &Dequantize);
}

}  // namespace lmfusion
