#include "kernels/output/logit_kernels.h"

#include "kernels/simd/exp.h"

namespace lmfusion {
namespace LMFUSION_SIMD {
namespace {

inline F Apply(const LogitRule& rule, F x) {
  x = Mul(x, Splat(rule.scale));
  return rule.softcap == 0 ? x : SoftCapped(x, rule.softcap);
}

constexpr float kMinusInfinity = -kInfinity;

// The sums relative to the two largest logits; members only where they are asked for.
inline void SumLogits(const float* logits, int64_t n, const uint8_t* members, LogSum* all,
                      LogSum* of_members) {
  const F zero = Zero();
  F sum = zero, members_sum = zero;
  // What lies far below the largest logit of all would lose digits in a sum relative to it.
  const bool apart = members && of_members->largest < all->largest - 20;
  for (int64_t i = 0; i < n; i += 16) {
    const F logit = Load(logits + i);
    const F e = Exp(Sub(logit, Splat(all->largest)));
    sum = Add(sum, e);
    if (!members) continue;
    const F own = apart ? Exp(Sub(logit, Splat(of_members->largest))) : e;
    members_sum = Add(members_sum, KeepMembers(own, members + i, zero));
  }
  all->sum = SumOf(sum);
  if (!members) return;
  if (!apart) of_members->largest = all->largest;
  of_members->sum = SumOf(members_sum);
}

void SumExp(float* products, int64_t n, const LogitRule& rule, const uint8_t* members, LogSum* all,
            LogSum* of_members) {
  F largest = Splat(kMinusInfinity), largest_member = largest;
  for (int64_t i = 0; i < n; i += 16) {
    F logit = Apply(rule, Load(products + i));
    if (n - i < 16) {
      Store(products + i, Splat(kMinusInfinity));
      StorePart(products + i, n - i, logit);
      logit = Load(products + i);
    } else {
      Store(products + i, logit);
    }
    largest = Max(logit, largest);
    if (members) {
      largest_member = Max(KeepMembers(logit, members + i, Splat(kMinusInfinity)), largest_member);
    }
  }
  *all = {LargestOf(largest), 0};
  if (members) *of_members = {LargestOf(largest_member), 0};
  if (all->largest == kMinusInfinity) {
    for (int64_t i = 0; i < n; ++i) all->sum += products[i] == products[i] ? 0 : products[i];
    if (members) of_members->sum = all->sum;
    return;
  }
  const bool some = members && of_members->largest != kMinusInfinity;
  SumLogits(products, n, some ? members : nullptr, all, of_members);
  if (members && !some && all->sum != all->sum) of_members->sum = all->sum;
}

}  // namespace

const LogitKernels kLogitKernels = {&SumExp};

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
