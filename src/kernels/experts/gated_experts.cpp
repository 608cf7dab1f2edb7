#include "kernels/experts/gated_experts.h"

#include <algorithm>
#include <optional>

#include "kernels/linear/panel_products.h"
#include "kernels/threads/parallel.h"
#include "kernels/threads/scratch.h"

namespace lmfusion {
namespace {

// Note [Grouped products]
// Few tokens and many experts make many products of one to eight rows. As one loop each they
// would spend their time in waiting for the slowest thread of each; so all experts' panels are one
// loop, in the order in which they lie in memory: gates and ups, then downs. Rows are gathered,
// gated and packed by expert between. A token and one of its experts are a pair; pairs are sorted
// by expert, and by token within, so an expert's rows lie together. Neither the products nor the
// order in which a token adds its pairs depends on the other tokens, see Note [Same bits].

// Elements that one thread moves in about the time that it takes another one to join it.
constexpr int64_t kSerialElements = 16384;

// The pairs of one expert.
struct Run {
  int64_t expert, first, count;
};

struct SortedPairs {
  explicit SortedPairs(const ExpertChoices& choices, int64_t experts);

  std::vector<Run> runs;        // of experts with a token at least
  std::vector<int64_t> tokens;  // [pairs]
  std::vector<float> weights;   // [pairs]
  std::vector<int64_t> places;  // [tokens][top_k]: a token's pairs, ascending
};

SortedPairs::SortedPairs(const ExpertChoices& choices, int64_t experts)
    : tokens(choices.tokens * choices.top_k), weights(tokens.size()), places(tokens.size()) {
  const auto pairs = static_cast<int64_t>(tokens.size());
  std::vector<int64_t> next(experts + 1);  // the place of each expert's next pair
  for (int64_t i = 0; i < pairs; ++i) ++next[choices.experts[i] + 1];
  for (int64_t expert = 0; expert < experts; ++expert) {
    const int64_t count = next[expert + 1];
    if (count > 0) runs.push_back({expert, next[expert], count});
    next[expert + 1] += next[expert];
  }
  for (int64_t i = 0; i < pairs; ++i) {
    const int64_t place = next[choices.experts[i]]++;
    tokens[place] = i / choices.top_k;
    weights[place] = choices.weights[i];
    places[i] = place;
  }
  for (int64_t token = 0; token < choices.tokens; ++token) {
    const auto begin = places.begin() + token * choices.top_k;
    std::sort(begin, begin + choices.top_k);
  }
}

// Products of the runs' rows, each with a weight of its own, as one loop.
class GroupedProducts {
 public:
  GroupedProducts(const std::vector<Run>& runs, int64_t in)
      : in_(in), runs_(runs), products_(runs.size()) {}

  // write(run, rows) writes a run's rows [run.count, in].
  template <class Weight, class Write>
  void Pack(Weight weight, Write write) {
    const auto runs = static_cast<int64_t>(runs_.size());
    const int64_t elements = (runs_.back().first + runs_.back().count) * in_;
    const int64_t grain = std::max<int64_t>(1, kSerialElements * runs / elements);
    ParallelFor(0, runs, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Run& run = runs_[i];
        const Scratch rows(run.count * in_ * static_cast<int64_t>(sizeof(float)));
        write(run, rows.As<float>());
        products_[i].emplace(weight(run.expert), rows.As<float>(), run.count);
      }
    });
  }

  // y [pairs, out]
  void Compute(float* y, int64_t out) const {
    std::vector<int64_t> ends;  // of each run's chunks among those of all
    int64_t chunks = 0;
    for (const auto& products : products_) {
      ends.push_back(chunks += (PanelsOf(out) + products->grain() - 1) / products->grain());
    }
    ParallelFor(0, chunks, 1, [&](int64_t chunk, int64_t) {
      const int64_t i = std::upper_bound(ends.begin(), ends.end(), chunk) - ends.begin();
      const int64_t grain = products_[i]->grain();
      const int64_t panel = (chunk - (i == 0 ? 0 : ends[i - 1])) * grain;
      products_[i]->Compute(panel, std::min(grain, PanelsOf(out) - panel),
                            y + runs_[i].first * out + panel * kPanelOutputs, out);
    });
  }

 private:
  const int64_t in_;
  const std::vector<Run>& runs_;
  std::vector<std::optional<PanelProducts>> products_;
};

}  // namespace

void SumExperts(const std::vector<GatedExpert>& experts, Activation activation,
                const ExpertChoices& choices, const float* x, const float* residual, float* y) {
  if (choices.tokens == 0) return;
  const SortedPairs pairs(choices, static_cast<int64_t>(experts.size()));
  const auto count = static_cast<int64_t>(pairs.tokens.size());
  const int64_t hidden = experts[0].down.out, inner = experts[0].down.in;
  const Scratch memory(count * std::max(2 * inner, hidden) * static_cast<int64_t>(sizeof(float)));
  auto* const products = memory.As<float>();

  GroupedProducts gate_up(pairs.runs, hidden), down(pairs.runs, inner);
  gate_up.Pack([&](int64_t expert) -> const PackedWeight& { return experts[expert].gate_up; },
               [&](const Run& run, float* rows) {
                 for (int64_t i = 0; i < run.count; ++i) {
                   std::copy_n(x + pairs.tokens[run.first + i] * hidden, hidden, rows + i * hidden);
                 }
               });
  gate_up.Compute(products, 2 * inner);
  const auto gate = CurrentRowKernels().gate[static_cast<int>(activation)];
  down.Pack([&](int64_t expert) -> const PackedWeight& { return experts[expert].down; },
            [&](const Run& run, float* rows) {
              const float* const both = products + run.first * 2 * inner;
              gate({both, 2 * inner, both + inner, 2 * inner, run.count, inner, rows, inner});
            });
  down.Compute(products, hidden);

  const int64_t grain = std::max<int64_t>(1, kSerialElements / (choices.top_k * hidden));
  ParallelFor(0, choices.tokens, grain, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      float* const sum = y + token * hidden;
      if (residual != nullptr) {
        std::copy_n(residual + token * hidden, hidden, sum);
      } else {
        std::fill_n(sum, hidden, 0.0f);
      }
      for (int64_t k = 0; k < choices.top_k; ++k) {
        const int64_t place = pairs.places[token * choices.top_k + k];
        const float weight = pairs.weights[place];
        const float* const result = products + place * hidden;
        for (int64_t i = 0; i < hidden; ++i) sum[i] += weight * result[i];
      }
    }
  });
}

}  // namespace lmfusion
