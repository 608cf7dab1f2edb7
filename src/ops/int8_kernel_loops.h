// Products of blocks and activations of 8 bits; see linear_kernel_loops.h, which comes before.

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
        for (int j = 0; j < 8; ++j) {
          const I input = SplatWord(x[j * kTokens + t]);
          dot = kSigned ? DotBytes(dot, bytes[j], input) : DotNibbles(dot, bytes[j], input);
        }
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

template <class Block, int kTokens = kMaxInt8Tokens>
void AddInt8Kernels(LinearKernels* kernels) {
  if constexpr (kTokens > 0) {
    kernels->int8[static_cast<int>(Block::kFormat)][kTokens] = &Int8Product<Block, kTokens>;
    AddInt8Kernels<Block, kTokens - 1>(kernels);
  }
}

inline void AddInt8Kernels(LinearKernels* kernels) {
  kernels->max_int8_tokens = kMaxInt8Tokens;
  AddInt8Kernels<Q4Block>(kernels);
  AddInt8Kernels<Q8Block>(kernels);
}
