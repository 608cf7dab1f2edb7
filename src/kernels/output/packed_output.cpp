#include "kernels/output/packed_output.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/linear/panel_products.h"
#include "kernels/linear/weight_blocks.h"
#include "kernels/threads/parallel.h"
#include "kernels/threads/scratch.h"

namespace lmfusion {
namespace {

constexpr int64_t kTilePanels = 8;
constexpr int64_t kJoinedTiles = 1024;  // of all rows of a chunk
constexpr int64_t kTileWords = kTilePanels * kPanelOutputs;

// The vocabulary in tiles: the products of a tile with all rows, then their sums, are made while
// they are in the cache. parts, member_parts: [tiles][rows]; members: null or padded to whole tiles
// of lanes.
void SumTiles(const PackedOutput& output, const PanelProducts& products, int64_t rows,
              const uint8_t* members, LogSum* parts, LogSum* member_parts) {
  const int64_t vocabulary = output.weight.out;
  const int64_t tiles = (vocabulary + kTileWords - 1) / kTileWords;
  const auto sum_exp = CurrentLogitKernels().sum_exp;
  ParallelFor(0, tiles, 1, [&](int64_t begin, int64_t end) {
    ChunkFloats memory(rows * kTileWords);
    float* const logits = memory.data();
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTileWords;
      const int64_t words = std::min(kTileWords, vocabulary - first);
      products.Compute(first / kPanelOutputs, PanelsOf(words), logits, kTileWords);
      for (int64_t row = 0; row < rows; ++row) {
        sum_exp(logits + row * kTileWords, words, output.rule, members ? members + first : nullptr,
                parts + tile * rows + row, member_parts + tile * rows + row);
      }
    }
  });
}

float Dot(const float* x, const float* weights, int64_t n) {
  double sums[4] = {};
  for (int64_t i = 0; i < n; ++i) sums[i % 4] += static_cast<double>(x[i]) * weights[i];
  return static_cast<float>(sums[0] + sums[1] + sums[2] + sums[3]);
}

float LogitOf(float product, const LogitRule& rule) {
  const float logit = product * rule.scale;
  return rule.softcap == 0 ? logit : rule.softcap * std::tanh(logit / rule.softcap);
}

}  // namespace

void LogNormalizers(const PackedOutput& output, const float* hidden, int64_t rows,
                    const uint8_t* members, float* all, float* of_members) {
  if (rows == 0) return;
  const int64_t vocabulary = output.weight.out;
  const int64_t tiles = (vocabulary + kTileWords - 1) / kTileWords;
  std::vector<uint8_t> padded;  // kernels read sixteen at a time
  if (members != nullptr) {
    padded.assign(members, members + vocabulary);
    padded.resize(PanelsOf(vocabulary) * kPanelOutputs);
  }
  std::vector<LogSum> parts(tiles * rows), member_parts(members ? tiles * rows : 0);
  const PanelProducts products(output.weight, hidden, rows);
  SumTiles(output, products, rows, members ? padded.data() : nullptr, parts.data(),
           member_parts.data());
  ParallelFor(0, rows, kJoinedTiles / tiles + 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      all[row] = ValueOf(parts.data() + row, tiles, rows);
      if (members) of_members[row] = ValueOf(member_parts.data() + row, tiles, rows);
    }
  });
}

void TokenLogits(const PackedOutput& output, float* hidden, int64_t hidden_rows,
                 const int64_t* rows, const int64_t* tokens, int64_t count, float* logits) {
  const PackedWeight& weight = output.weight;
  const int64_t in = weight.in;
  RoundActivations(weight.compute, hidden, hidden_rows, in);
  ParallelFor(0, count, 8, [&](int64_t begin, int64_t end) {
    std::vector<float> weights(in);
    for (int64_t i = begin; i < end; ++i) {
      ReadRow(weight.format, weight.panels.get(), in, tokens[i], weights.data());
      const float product = Dot(hidden + rows[i] * in, weights.data(), in);
      logits[i] =
          LogitOf(product + (weight.bias.empty() ? 0 : weight.bias[tokens[i]]), output.rule);
    }
  });
}

}  // namespace lmfusion
