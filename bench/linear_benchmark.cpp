// What linear layers of SmolLM2-135M's sizes take, beside what the machine can read and multiply:
//   linear_benchmark [--benchmark_filter=...]
// bytes_per_second counts the weights once, items_per_second multiplications and additions. The
// instruction set is LMFUSION_CPU's, the number of threads OMP_NUM_THREADS'.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "kernels/simd/instruction_set.h"
#include "kernels/threads/parallel.h"
#include "ops/packed_linear.h"
#include "ops/packed_output.h"

namespace lmfusion {
namespace {

enum Weights : int64_t { kFloat32Weights, kBFloat16Weights, kQ41Weights, kQ80Weights };

// Blocks whose scales are 1/16 (and minima 0): what the numbers are does not matter here.
at::Tensor Blocks(int64_t out, int64_t in, int64_t block_bytes) {
  at::Tensor blocks = at::randint(0, 256, {out, in / 32, block_bytes}, at::kByte);
  blocks.slice(2, 0, 1).fill_(0);
  blocks.slice(2, 1, 2).fill_(0x2c);
  if (block_bytes == 20) blocks.slice(2, 2, 4).fill_(0);
  return blocks.view({out, -1});
}

c10::intrusive_ptr<PackedMatrix> Matrix(int64_t weights, int64_t out, int64_t in, Compute compute) {
  WeightRows rows;
  switch (weights) {
    case kFloat32Weights: rows = {at::randn({out, in})}; break;
    case kBFloat16Weights: rows = {at::randn({out, in}).to(at::kBFloat16)}; break;
    case kQ41Weights: rows = {Blocks(out, in, 20), WeightType::kQ4_1}; break;
    default: rows = {Blocks(out, in, 34), WeightType::kQ8_0}; break;
  }
  return PackedMatrix::Pack({rows}, std::nullopt, compute);
}

struct Shape {
  int64_t out, in;
};
// Queries, keys and values; output; gate and up; down.
constexpr Shape kLayer[] = {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}};

// The linear layers of a model of 30 layers, one after another, so that weights come from memory.
void Layers(benchmark::State& state) {
  const auto compute = static_cast<Compute>(state.range(0));
  const int64_t rows = state.range(2);
  std::vector<c10::intrusive_ptr<PackedMatrix>> matrices;
  int64_t bytes = 0, operations = 0, width = 0;
  for (int layer = 0; layer < 30; ++layer) {
    for (const Shape& shape : kLayer) {
      matrices.push_back(Matrix(state.range(1), shape.out, shape.in, compute));
      bytes += matrices.back()->bytes();
      operations += 2 * rows * shape.out * shape.in;
      width = std::max(width, std::max(shape.out, shape.in));
    }
  }
  const at::Tensor x = at::randn({rows, width});
  at::Tensor y = at::empty({rows, width});
  for (auto _ : state) {
    for (const auto& matrix : matrices) {
      Multiply(matrix->weight(), x.const_data_ptr<float>(), rows, y.data_ptr<float>());
    }
  }
  state.SetBytesProcessed(state.iterations() * bytes);
  state.SetItemsProcessed(state.iterations() * operations);
  state.SetLabel(std::string(Name(compute)) + " " + matrices[0]->format());
}

// One matrix that stays in the second cache.
void InCache(benchmark::State& state) {
  const auto compute = static_cast<Compute>(state.range(0));
  const int64_t rows = state.range(2), out = 256, in = 576;
  const auto matrix = Matrix(state.range(1), out, in, compute);
  const at::Tensor x = at::randn({rows, in});
  at::Tensor y = at::empty({rows, out});
  for (auto _ : state) {
    Multiply(matrix->weight(), x.const_data_ptr<float>(), rows, y.data_ptr<float>());
  }
  state.SetItemsProcessed(state.iterations() * 2 * rows * out * in);
  state.SetLabel(std::string(Name(compute)) + " " + matrix->format());
}

void LayersOfEveryType(benchmark::internal::Benchmark* benchmark) {
  const std::pair<Compute, Weights> kinds[] = {
      {Compute::kFloat32, kFloat32Weights},   {Compute::kFloat32, kBFloat16Weights},
      {Compute::kFloat32, kQ41Weights},       {Compute::kFloat32, kQ80Weights},
      {Compute::kBFloat16, kBFloat16Weights}, {Compute::kBFloat16, kQ41Weights},
      {Compute::kInt8, kFloat32Weights},      {Compute::kInt4, kQ41Weights}};
  for (const auto& [compute, weights] : kinds) {
    for (int64_t rows : {1, 4, 12, 15, 16, 17, 20, 24, 32, 128, 512}) {
      benchmark->Args({static_cast<int64_t>(compute), weights, rows});
    }
  }
}
BENCHMARK(Layers)
    ->Apply(LayersOfEveryType)
    ->ArgNames({"compute", "weights", "rows"})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(InCache)
    ->Apply(LayersOfEveryType)
    ->ArgNames({"compute", "weights", "rows"})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

void Normalizer(benchmark::State& state) {
  const auto compute = static_cast<Compute>(state.range(0));
  const int64_t rows = state.range(2), vocabulary = state.range(3);
  constexpr int64_t kHidden = 576;
  const PackedOutputLayer output{Matrix(state.range(1), vocabulary, kHidden, compute)};
  const at::Tensor hidden = at::randn({rows, kHidden});
  for (auto _ : state) benchmark::DoNotOptimize(LogNormalizer(hidden, output));
  state.SetBytesProcessed(state.iterations() * output.weight->bytes());
  state.SetItemsProcessed(state.iterations() * 2 * rows * vocabulary * kHidden);
  state.SetLabel(std::string(Name(compute)) + " " + output.weight->format());
}
BENCHMARK(Normalizer)
    ->ArgsProduct({{static_cast<int64_t>(Compute::kFloat32), static_cast<int64_t>(Compute::kInt8)},
                   {kQ80Weights},
                   {1, 15, 128},
                   {49152, 262144}})
    ->ArgNames({"compute", "weights", "rows", "vocabulary"})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// The limit of few rows: reading 256 MB on all threads.
void Read(benchmark::State& state) {
  const std::vector<int64_t> memory(int64_t{32} << 20, 1);
  for (auto _ : state) {
    ParallelFor(0, memory.size(), 1 << 16, [&](int64_t begin, int64_t end) {
      int64_t sums[8] = {};
      for (int64_t i = begin; i < end; i += 8) {
        for (int k = 0; k < 8; ++k) sums[k] ^= memory[i + k];
      }
      benchmark::DoNotOptimize(sums);
    });
  }
  state.SetBytesProcessed(state.iterations() * memory.size() * sizeof(int64_t));
}
BENCHMARK(Read)->UseRealTime()->Unit(benchmark::kMillisecond);

#if defined(__x86_64__)
// The limit of many rows: products and sums of floats that never leave the registers, in twelve
// independent chains, on all threads.
constexpr int64_t kSteps = 1 << 16, kChains = 12;
__attribute__((target("avx2,fma"))) void ChainsOfAvx2() {
  __m256 sums[kChains];
  const __m256 half = _mm256_set1_ps(0.5f);
  for (__m256& sum : sums) sum = half;
  for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, half, half);
  }
  for (__m256& sum : sums) benchmark::DoNotOptimize(sum);
}
__attribute__((target("avx512f"))) void ChainsOfAvx512() {
  __m512 sums[kChains];
  const __m512 half = _mm512_set1_ps(0.5f);
  for (__m512& sum : sums) sum = half;
  for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, half, half);
  }
  for (__m512& sum : sums) benchmark::DoNotOptimize(sum);
}
void Peak(benchmark::State& state) {
  const InstructionSet set = CurrentInstructionSet();
  if (set == InstructionSet::kPortable) return state.SkipWithError("no vectors of its own");
  const bool avx2 = set == InstructionSet::kAvx2 || set == InstructionSet::kAvx2Vnni;
  const int64_t threads = at::get_num_threads();
  for (auto _ : state) {
    ParallelFor(0, threads, 1, [&](int64_t, int64_t) { avx2 ? ChainsOfAvx2() : ChainsOfAvx512(); });
  }
  state.SetItemsProcessed(state.iterations() * threads * kSteps * kChains * (avx2 ? 16 : 32));
}
BENCHMARK(Peak)->UseRealTime()->Unit(benchmark::kMicrosecond);
#endif

// What a parallel loop costs besides its work.
void EmptyLoop(benchmark::State& state) {
  std::atomic<int> pieces{0};
  for (auto _ : state) {
    ParallelFor(0, 8, 1, [&](int64_t, int64_t) { pieces.fetch_add(1); });
  }
}
BENCHMARK(EmptyLoop)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lmfusion

BENCHMARK_MAIN();
