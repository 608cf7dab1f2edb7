// The loops of the linear kernels, written once over sixteen lanes: F (floats) and I (32-bit
// words) and their operations, which lanes_*.h define for each instruction set. Included by
// linear_kernels_*.cpp inside its anonymous namespace, where the compiler may use that set; so
// there is no include guard and nothing is included here.
//
// kTokens is the number of tokens of a kernel: their sums live in registers.

// More than one chain of sums where few tokens would leave the adders waiting for each other.
constexpr int ChainsFor(int tokens) { return tokens == 1 ? 4 : tokens <= 3 ? 2 : 1; }

inline float FloatOf(uint32_t word) {
  float value;
  std::memcpy(&value, &word, sizeof(value));
  return value;
}
inline uint32_t WordOf(float value) {
  uint32_t word;
  std::memcpy(&word, &value, sizeof(word));
  return word;
}

// Weights are read once, in order. The CPU's own prefetching stays too close behind where each
// line takes many operations, so lines this many bytes ahead are asked for; at the end of a panel
// those are the next one's.
constexpr int64_t kPrefetchBytes = 2048;
template <int kLines>
inline void Prefetch(const uint8_t* words) {
  for (int i = 0; i < kLines; ++i) __builtin_prefetch(words + kPrefetchBytes + i * kWordRowBytes);
}

// Formats: a block's words, each row of which holds kPerWord inputs of every output.
struct Float32Block {
  static constexpr PanelFormat kFormat = PanelFormat::kFloat32;
  static constexpr int kRows = 8, kPerRow = 4, kRowLines = 4;
  const uint8_t* words;
  Float32Block(const uint8_t* panel, int64_t, int64_t block)
      : words(panel + block * BlockBytes(kFormat)) {}
  static constexpr int Input(int row, int i) { return 4 * row + i; }
  template <int i>
  F Weight(int row) const {
    return AsFloat(LoadWords(words + (4 * row + i) * kWordRowBytes));
  }
};

struct BFloat16Block {
  static constexpr PanelFormat kFormat = PanelFormat::kBFloat16;
  static constexpr int kRows = 8, kPerRow = 4, kRowLines = 2;
  const uint8_t* words;
  BFloat16Block(const uint8_t* panel, int64_t, int64_t block)
      : words(panel + block * BlockBytes(kFormat)) {}
  static constexpr int Input(int row, int i) { return 4 * row + i; }
  template <int i>
  F Weight(int row) const {
    const I pair = LoadWords(words + (2 * row + i / 2) * kWordRowBytes);
    return i % 2 == 0 ? LowHalf(pair) : HighHalf(pair);
  }
};

struct Q4Block {
  static constexpr PanelFormat kFormat = PanelFormat::kQ4;
  static constexpr int kRows = 4, kPerRow = 8, kRowLines = 1;
  const uint8_t* words;
  F scale, minimum;
  Q4Block(const uint8_t* panel, int64_t, int64_t block) {
    const uint8_t* begin = panel + block * BlockBytes(kFormat);
    scale = LoadHalf(begin);
    minimum = LoadHalf(begin + 2 * kPanelOutputs);
    words = begin + kWordRowBytes;
  }
  // The nibbles of a word, from the lowest: inputs 0, 4, 1, 5, 2, 6, 3, 7.
  static constexpr int Input(int row, int i) { return 8 * row + i / 2 + i % 2 * 4; }
  template <int i>
  F Weight(int row) const {
    return MulAdd(Nibble<4 * i>(LoadWords(words + row * kWordRowBytes)), scale, minimum);
  }
};

struct Q8Block {
  static constexpr PanelFormat kFormat = PanelFormat::kQ8;
  static constexpr int kRows = 8, kPerRow = 4, kRowLines = 1;
  const uint8_t* words;
  F scale, zero;
  Q8Block(const uint8_t* panel, int64_t blocks, int64_t block) {
    words = panel + block * BlockBytes(kFormat);
    scale = LoadHalf(panel + blocks * BlockBytes(kFormat) + block * 2 * kPanelOutputs);
    zero = Mul(scale, Splat(-128));
  }
  static constexpr int Input(int row, int i) { return 4 * row + i; }
  template <int i>
  F Weight(int row) const {
    return MulAdd(Byte<i>(LoadWords(words + row * kWordRowBytes)), scale, zero);
  }
};

// sums += weight i and the following ones of a row of words, times the tokens' inputs.
template <class Block, int kTokens, int i = 0>
inline void AddRow(const Block& block, int row, const float* x,
                   F (&sums)[ChainsFor(kTokens)][kTokens]) {
  if constexpr (i < Block::kPerRow) {
    if constexpr (i == 0) {
      Prefetch<Block::kRowLines>(block.words + row * Block::kRowLines * kWordRowBytes);
    }
    const F weight = block.template Weight<i>(row);
    const float* inputs = x + Block::Input(row, i) * kTokens;
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      F& sum = sums[i % ChainsFor(kTokens)][t];
      sum = MulAdd(weight, Splat(inputs[t]), sum);
    }
    AddRow<Block, kTokens, i + 1>(block, row, x, sums);
  }
}

// Adds the chains and the bias and writes one panel's outputs.
template <int kTokens>
inline void Finish(const PanelProduct& p, int64_t panel, F (&sums)[ChainsFor(kTokens)][kTokens]) {
  const int64_t first = panel * kPanelOutputs;
  const int64_t outputs = std::min(kPanelOutputs, p.outputs - first);
  const F bias = p.bias ? Load(p.bias + first) : Zero();
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    F sum = sums[0][t];
    for (int c = 1; c < ChainsFor(kTokens); ++c) sum = Add(sum, sums[c][t]);
    float* y = p.y + t * p.y_stride + first;
    if (outputs == kPanelOutputs) {
      Store(y, Add(sum, bias));
    } else {
      StorePart(y, outputs, Add(sum, bias));
    }
  }
}

// Inputs whose products go into one sum; the sums of such pieces are added. A sum over all inputs
// would lose a digit in wide layers.
constexpr int64_t kPieceBlocks = 4;

template <class Block, int kTokens>
void Float32Product(const PanelProduct& p) {
  const float* activations = reinterpret_cast<const float*>(p.activations);
  for (int64_t panel = 0; panel * kPanelOutputs < p.outputs; ++panel) {
    const uint8_t* weights = p.panels + panel * p.panel_bytes;
    F totals[ChainsFor(kTokens)][kTokens];
    for (auto& chain : totals) {
      for (F& total : chain) total = Zero();
    }
    for (int64_t begin = 0; begin < p.blocks; begin += kPieceBlocks) {
      F sums[ChainsFor(kTokens)][kTokens];
      for (auto& chain : sums) {
        for (F& sum : chain) sum = Zero();
      }
      for (int64_t b = begin; b < std::min(begin + kPieceBlocks, p.blocks); ++b) {
        const Block block(weights, p.blocks, b);
        const float* x = activations + b * kBlockInputs * kTokens;
        for (int row = 0; row < Block::kRows; ++row) AddRow<Block, kTokens>(block, row, x, sums);
      }
      for (int c = 0; c < ChainsFor(kTokens); ++c) {
        for (int t = 0; t < kTokens; ++t) totals[c][t] = Add(totals[c][t], sums[c][t]);
      }
    }
    Finish<kTokens>(p, panel, totals);
  }
}

// The words of a block as unsigned bytes, four inputs a word.
template <class Block>
inline void LoadBytes(const Block& block, I (&bytes)[8]) {
  for (int j = 0; j < 8; ++j) bytes[j] = LoadWords(block.words + j * kWordRowBytes);
}
template <>
inline void LoadBytes(const Q4Block& block, I (&bytes)[8]) {
  for (int j = 0; j < 4; ++j) {
    const I words = LoadWords(block.words + j * kWordRowBytes);
    bytes[2 * j] = LowNibbles(words);
    bytes[2 * j + 1] = HighNibbles(words);
  }
}

template <class Block, int kTokens>
void Int8Product(const PanelProduct& p) {
  constexpr bool kSigned = Block::kFormat == PanelFormat::kQ8;
  for (int64_t panel = 0; panel * kPanelOutputs < p.outputs; ++panel) {
    const uint8_t* weights = p.panels + panel * p.panel_bytes;
    F sums[ChainsFor(kTokens)][kTokens];
    for (auto& chain : sums) {
      for (F& sum : chain) sum = Zero();
    }
    for (int64_t b = 0; b < p.blocks; ++b) {
      const Block block(weights, p.blocks, b);
      const uint32_t* x = p.activations + b * kInt8BlockWords * kTokens;
      Prefetch<Block::kRows * Block::kRowLines>(block.words);
      I bytes[8];
      LoadBytes(block, bytes);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        I dot = kSigned ? SplatWord(x[9 * kTokens + t]) : SplatWord(0);
#pragma GCC unroll 8
        for (int j = 0; j < 8; ++j) dot = DotBytes(dot, bytes[j], SplatWord(x[j * kTokens + t]));
        const F scaled = Mul(ToFloat(dot), Splat(FloatOf(x[8 * kTokens + t])));
        sums[0][t] = MulAdd(scaled, block.scale, sums[0][t]);
        if constexpr (Block::kFormat == PanelFormat::kQ4) {
          sums[0][t] = MulAdd(block.minimum, Splat(FloatOf(x[10 * kTokens + t])), sums[0][t]);
        }
      }
    }
    Finish<kTokens>(p, panel, sums);
  }
}

// Calls write(input, weights) for the 32 inputs of a block.
template <class Block, int i = 0>
inline void WidenRow(const Block& block, int row, float* out) {
  if constexpr (i < Block::kPerRow) {
    Store(out + Block::Input(row, i) * kPanelOutputs, block.template Weight<i>(row));
    WidenRow<Block, i + 1>(block, row, out);
  }
}

template <class Block>
void WidenPanel(const uint8_t* panel, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    const Block block(panel, blocks, b);
    for (int row = 0; row < Block::kRows; ++row) {
      WidenRow(block, row, out + b * kBlockInputs * kPanelOutputs);
    }
  }
}

inline void Widen(PanelFormat format, const uint8_t* panel, int64_t blocks, float* out) {
  switch (format) {
    case PanelFormat::kFloat32: return WidenPanel<Float32Block>(panel, blocks, out);
    case PanelFormat::kBFloat16: return WidenPanel<BFloat16Block>(panel, blocks, out);
    case PanelFormat::kQ4: return WidenPanel<Q4Block>(panel, blocks, out);
    case PanelFormat::kQ8: return WidenPanel<Q8Block>(panel, blocks, out);
  }
}

// out[i * tokens + t] = rows[t * stride + i] for i < count <= 16. Words of rows are readable up to
// the sixteenth.
inline void WriteColumns(const void* rows, int64_t stride, int tokens, int count, uint32_t* out) {
  if (Transposed(rows, stride, tokens, count, out)) return;
  for (int t = 0; t < tokens; ++t) {
    uint32_t row[16];
    std::memcpy(row, static_cast<const uint32_t*>(rows) + t * stride, sizeof(row));
    for (int i = 0; i < count; ++i) out[i * tokens + t] = row[i];
  }
}

// The 32 inputs of a token's block, zeros behind the last.
inline const float* BlockOf(const Activations& a, int token, int64_t block,
                            float (&rest)[kBlockInputs]) {
  const float* x = a.x + token * a.in + block * kBlockInputs;
  const int64_t left = a.in - block * kBlockInputs;
  if (left >= kBlockInputs) return x;
  for (int64_t i = 0; i < kBlockInputs; ++i) rest[i] = i < left ? x[i] : 0;
  return rest;
}

inline void PackFloat32(const Activations& a) {
  float rest[kMostTokens][kBlockInputs];
  for (int64_t b = 0; b < BlocksOf(a.in); ++b) {
    const float* x = a.x + b * kBlockInputs;
    int64_t stride = a.in;
    if (a.in - b * kBlockInputs < kBlockInputs) {
      for (int t = 0; t < a.tokens; ++t) BlockOf(a, t, b, rest[t]);
      x = rest[0];
      stride = kBlockInputs;
    }
    uint32_t* out = a.packed + b * kBlockInputs * a.tokens;
    WriteColumns(x, stride, a.tokens, 16, out);
    WriteColumns(x + 16, stride, a.tokens, 16, out + 16 * a.tokens);
  }
}

// The words of one token's block, see Note [Activations].
inline void QuantizeBlock(const float* x, uint32_t* words) {
  const F first = Load(x), second = Load(x + 16);
  const float largest = LargestMagnitude(first, second);
  const bool finite = largest <= std::numeric_limits<float>::max();
  const bool empty = !finite || largest < 1e-30f;
  const F inverse = Splat(empty ? 0 : 127 / largest);
  const I low = empty ? SplatWord(0) : ToInt(Mul(first, inverse));
  const I high = empty ? SplatWord(0) : ToInt(Mul(second, inverse));
  StoreBytes(words, low);
  StoreBytes(words + 4, high);
  const int32_t sum = SumOf(low, high);
  const float scale =
      finite ? largest * (1.0f / 127) : std::numeric_limits<float>::quiet_NaN();
  words[8] = WordOf(scale);
  words[9] = static_cast<uint32_t>(-128 * sum);
  words[10] = WordOf(scale * static_cast<float>(sum));
}

inline void PackInt8(const Activations& a) {
  float rest[kBlockInputs];
  uint32_t words[kMostTokens][16];
  for (int64_t b = 0; b < BlocksOf(a.in); ++b) {
    for (int t = 0; t < a.tokens; ++t) QuantizeBlock(BlockOf(a, t, b, rest), words[t]);
    WriteColumns(words[0], 16, a.tokens, kInt8BlockWords,
                 a.packed + b * kInt8BlockWords * a.tokens);
  }
}

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

template <class Block, int kTokens = kMaxTokens>
void AddFloat32Kernels(LinearKernels* kernels) {
  if constexpr (kTokens > 0) {
    kernels->float32[static_cast<int>(Block::kFormat)][kTokens] = &Float32Product<Block, kTokens>;
    AddFloat32Kernels<Block, kTokens - 1>(kernels);
  }
}

template <class Block, int kTokens = kMaxTokens>
void AddInt8Kernels(LinearKernels* kernels) {
  if constexpr (kTokens > 0) {
    kernels->int8[static_cast<int>(Block::kFormat)][kTokens] = &Int8Product<Block, kTokens>;
    AddInt8Kernels<Block, kTokens - 1>(kernels);
  }
}

inline LinearKernels MakeKernels() {
  LinearKernels kernels{};
  kernels.max_tokens = kMaxTokens;
  AddFloat32Kernels<Float32Block>(&kernels);
  AddFloat32Kernels<BFloat16Block>(&kernels);
  AddFloat32Kernels<Q4Block>(&kernels);
  AddFloat32Kernels<Q8Block>(&kernels);
  AddInt8Kernels<Q4Block>(&kernels);
  AddInt8Kernels<Q8Block>(&kernels);
  kernels.pack_float32 = &PackFloat32;
  kernels.pack_int8 = &PackInt8;
  kernels.widen = &Widen;
  kernels.sum_exp = &SumExp;
  return kernels;
}
