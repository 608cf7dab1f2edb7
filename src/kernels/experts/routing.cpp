#include "kernels/experts/routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/threads/parallel.h"

namespace lmfusion {
namespace {

constexpr int64_t kSerialLogits = 4096;  // in about the time that it takes a thread to join

// Whether logit a comes before b.
bool Larger(float a, float b) { return std::isnan(a) ? !std::isnan(b) : a > b; }

void ChooseForToken(const float* logits, int64_t experts, int64_t top_k, bool normalized,
                    std::vector<int64_t>* order, int64_t* numbers, float* weights) {
  std::iota(order->begin(), order->end(), 0);
  std::partial_sort(order->begin(), order->begin() + top_k, order->end(),
                    [logits](int64_t a, int64_t b) {
                      if (Larger(logits[a], logits[b])) return true;
                      return !Larger(logits[b], logits[a]) && a < b;
                    });
  std::copy_n(order->begin(), top_k, numbers);
  const float largest = logits[numbers[0]];
  float sum = 0;
  for (int64_t k = 0; k < top_k; ++k) {
    weights[k] = std::exp(logits[numbers[k]] - largest);
    if (normalized) sum += weights[k];
  }
  for (int64_t i = 0; !normalized && i < experts; ++i) sum += std::exp(logits[i] - largest);
  for (int64_t k = 0; k < top_k; ++k) weights[k] /= sum;
}

}  // namespace

void ChooseExperts(const float* logits, int64_t tokens, int64_t experts, int64_t top_k,
                   bool normalized, int64_t* numbers, float* weights) {
  ParallelFor(0, tokens, std::max<int64_t>(1, kSerialLogits / experts),
              [&](int64_t begin, int64_t end) {
                std::vector<int64_t> order(experts);
                for (int64_t token = begin; token < end; ++token) {
                  ChooseForToken(logits + token * experts, experts, top_k, normalized, &order,
                                 numbers + token * top_k, weights + token * top_k);
                }
              });
}

}  // namespace lmfusion
