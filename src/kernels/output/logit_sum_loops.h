// Sums of exponentials of logits; see linear_kernel_loops.h, which comes before.

// exp(x) for x <= 88 within 2 units in the last place; about 0 below -87; NaN stays.
inline F Exp(F x) {
  x = Max(Splat(-87.0f), x);
  const F n = Round(Mul(x, Splat(1.44269504f)));
  F r = MulAdd(n, Splat(-0.693145752f), x);
  r = MulAdd(n, Splat(-1.42860677e-6f), r);
  F p = Splat(1.0f / 5040);
  p = MulAdd(p, r, Splat(1.0f / 720));
  p = MulAdd(p, r, Splat(1.0f / 120));
  p = MulAdd(p, r, Splat(1.0f / 24));
  p = MulAdd(p, r, Splat(1.0f / 6));
  p = MulAdd(p, r, Splat(0.5f));
  p = MulAdd(p, r, Splat(1.0f));
  p = MulAdd(p, r, Splat(1.0f));
  return Mul(p, PowerOfTwo(n));
}

inline F Apply(const LogitRule& rule, F x) {
  x = Mul(x, Splat(rule.scale));
  if (rule.softcap == 0) return x;
  // tanh z = 1 - 2 / (exp 2z + 1)
  const F twice = Min(Splat(80.0f), Mul(x, Splat(2 / rule.softcap)));
  const F ratio = Div(Splat(2.0f), Add(Exp(twice), Splat(1.0f)));
  return Mul(Splat(rule.softcap), Sub(Splat(1.0f), ratio));
}

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// The sums relative to the two largest logits; members only where they are asked for.
inline void SumLogits(const float* logits, int64_t n, const uint8_t* members, PartialSum* all,
                      PartialSum* of_members) {
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

// products and members are readable, and products writable, up to the next multiple of 16.
inline void SumExp(float* products, int64_t n, const LogitRule& rule, const uint8_t* members,
                   PartialSum* all, PartialSum* of_members) {
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

inline void AddLogitSums(LinearKernels* kernels) { kernels->sum_exp = &SumExp; }
