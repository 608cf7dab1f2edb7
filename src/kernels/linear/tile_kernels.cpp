// Products by the tile registers of AMX; compiled for that set, and a second time for
// tests/cpp/tile_kernels_test.cpp, with registers of software.
#include "kernels/linear/tile_kernels.h"

#include "kernels/linear/activation_loops.h"
#include "kernels/linear/float32_loops.h"
#include "kernels/linear/nibble_bytes.h"
#include "kernels/simd/tiles.h"

namespace lmfusion {
namespace LMFUSION_SIMD {
namespace {

// Note [Registers of tiles]
// Four registers hold sums, so that a product (a new one every 16 cycles, with a result after some
// 50) need not wait for the one before it: of four panels with up to 16 tokens, and of two panels
// with more, whose first 16 are one half and the others the second. On paper, by Intel's figures
// for full tiles (16 cycles a product, 8 to load from the first cache, 16 to store), a block of 32
// inputs with 16 tokens and four panels, or with 32 tokens and two, takes
//   bfloat16  64 cycles of products, and beside them 4 to 5 loads, 32 to 40 cycles
//   int8      64 of products, and beside them as many of stores, 24 of loads (of half a tile
//             each), and 64 of vectors: a conversion and an addition for each token and panel
// Of AVX-512 it takes 1,024 instructions of vectors for bfloat16, and 640 for int8, two a cycle.
// With lines that are asked for ahead, loads of bfloat16 take up to 72 cycles, where weights come
// from memory anyway. Nothing of this was measured.
constexpr int kInputs = 4, kWeights = 6;  // the first of two
static_assert(kMostTileTokens == 2 * kTileRows);

template <int kHalves>
constexpr int kPanelsOfHalves = TilePanelsAtOnce(kHalves* kTileRows);
// The register of the sums of a panel and a half.
template <int kHalves>
constexpr int SumsOf(int panel, int half) {
  return kPanelsOfHalves<kHalves> * half + panel;
}

struct BFloat16Tile {
  static constexpr int64_t kInputBytes = 64, kWeightRows = 16;
  template <int kSums, int kInput, int kWeight>
  static void Add() {
    AddBFloat16Tile<kSums, kInput, kWeight>();
  }
};
struct ByteTile {
  static constexpr int64_t kInputBytes = 32, kWeightRows = 8;
  template <int kSums, int kInput, int kWeight>
  static void Add() {
    AddByteTile<kSums, kInput, kWeight>();
  }
};

template <class Tile>
void SetShapes(int tokens) {
  const int first = static_cast<int>(Smaller(tokens, kTileRows)), second = tokens - first;
  TileShapes shapes;
  const auto set = [&shapes](int tile, int rows, int64_t row_bytes) {
    shapes.rows[tile] = static_cast<uint8_t>(rows);
    shapes.row_bytes[tile] = static_cast<uint16_t>(rows == 0 ? 0 : row_bytes);
  };
  for (int i = 0; i < 4; ++i) set(i, second > 0 && i >= 2 ? second : first, kTileRowBytes);
  set(kInputs, first, Tile::kInputBytes);
  set(kInputs + 1, second, Tile::kInputBytes);
  for (int i = 0; i < 2; ++i) set(kWeights + i, Tile::kWeightRows, kTileRowBytes);
  SetTileShapes(&shapes);
}

template <int kHalves, int kPanels, int k = 0>
inline void ZeroSums() {
  if constexpr (k < kPanels) {
    ZeroTile<SumsOf<kHalves>(k, 0)>();
    if constexpr (kHalves == 2) ZeroTile<SumsOf<kHalves>(k, 1)>();
    ZeroSums<kHalves, kPanels, k + 1>();
  }
}

// The sums of a group of registers, as they are stored.
template <class Number>
struct Sums {
  alignas(64) Number of[4][kTileRows][kPanelOutputs];
};

template <int kHalves, int kPanels, class Number, int k = 0>
inline void StoreSums(Sums<Number>* sums) {
  if constexpr (k < kPanels) {
    StoreTile<SumsOf<kHalves>(k, 0)>(sums->of[SumsOf<kHalves>(k, 0)], kTileRowBytes);
    if constexpr (kHalves == 2) {
      StoreTile<SumsOf<kHalves>(k, 1)>(sums->of[SumsOf<kHalves>(k, 1)], kTileRowBytes);
    }
    StoreSums<kHalves, kPanels, Number, k + 1>(sums);
  }
}

// Adds the products of a block of inputs, [tokens][Tile::kInputBytes], and of panels that lie
// panel_bytes apart.
template <class Tile, int kHalves, int kPanels, int k = 0>
inline void AddTiles(const uint8_t* inputs, const uint8_t* weights, int64_t panel_bytes) {
  if constexpr (k == 0) {
    LoadTile<kInputs>(inputs, Tile::kInputBytes);
    if constexpr (kHalves == 2) {
      LoadTile<kInputs + 1>(inputs + kTileRows * Tile::kInputBytes, Tile::kInputBytes);
    }
  }
  if constexpr (k < kPanels) {
    constexpr int kWeight = kWeights + k % 2;
    LoadTile<kWeight>(weights + k * panel_bytes, kWordRowBytes);
    Tile::template Add<SumsOf<kHalves>(k, 0), kInputs, kWeight>();
    if constexpr (kHalves == 2) {
      Tile::template Add<SumsOf<kHalves>(k, 1), kInputs + 1, kWeight>();
    }
    AddTiles<Tile, kHalves, kPanels, k + 1>(inputs, weights, panel_bytes);
  }
}

template <int kHalves, int kPanels>
void BFloat16Panels(const PanelProduct& p, int tokens, int64_t panel) {
  const uint8_t* const weights = p.panels + panel * p.panel_bytes;
  const auto* inputs = reinterpret_cast<const uint8_t*>(p.activations);
  ZeroSums<kHalves, kPanels>();
  for (int64_t b = 0; b < p.blocks; ++b, inputs += tokens * BFloat16Tile::kInputBytes) {
    const int64_t done = b * BlockBytes(PanelFormat::kBFloat16);
    const int64_t ahead = PrefetchDistance<kPanels>(p, done);
    for (int k = 0; k < kPanels; ++k) Prefetch<16>(weights + k * p.panel_bytes + done + ahead);
    AddTiles<BFloat16Tile, kHalves, kPanels>(inputs, weights + done, p.panel_bytes);
  }
  Sums<float> sums;
  StoreSums<kHalves, kPanels>(&sums);
  for (int k = 0; k < kPanels; ++k) {
    for (int t = 0; t < tokens; ++t) {
      const float* const of = sums.of[SumsOf<kHalves>(k, t / kTileRows)][t % kTileRows];
      WriteToken(p, panel + k, t, Load(of));
    }
  }
}

// Blocks of bytes, a sum of which is scaled before the next one's is added: as Int8Product has it
// (int8_loops.h), to the bit. Formats say where a block's bytes lie, and what it adds to a total.
struct Int8Bytes {
  static constexpr PanelFormat kFormat = PanelFormat::kInt8;
  static constexpr bool kUnpacks = false;
  Int8Bytes() = default;
  Int8Bytes(const uint8_t*, int64_t, int64_t) {}
  F Added(F products, F scale, F, F total) const { return MulAdd(products, scale, total); }
};
struct NibbleTile {
  static constexpr PanelFormat kFormat = PanelFormat::kQ4;
  static constexpr bool kUnpacks = true;
  Q4Block block;
  NibbleTile() = default;
  NibbleTile(const uint8_t* panel, int64_t blocks, int64_t b) : block(panel, blocks, b) {}
  F Added(F products, F scale, F scaled_sum, F total) const {
    return AddNibbleProducts(products, block.scale, block.minimum, scale, scaled_sum, total);
  }
};

constexpr int64_t kTileBytes = ByteTile::kWeightRows * kWordRowBytes;
// Blocks whose sums are stored before they are scaled: few, so that a core that looks ahead finds
// the products of the next ones.
constexpr int kGroupBlocks = 2;

// Where activations stand, see TileKernels.
struct PackedBytes {
  PackedBytes(const PanelProduct& p, int of_tokens)
      : tokens(of_tokens),
        bytes(reinterpret_cast<const uint8_t*>(p.activations)),
        scales(reinterpret_cast<const float*>(bytes + p.blocks * tokens * ByteTile::kInputBytes)),
        minus(scales + 2 * p.blocks * tokens) {}
  const uint8_t* Inputs(int64_t block) const {
    return bytes + block * tokens * ByteTile::kInputBytes;
  }
  const float* Scales(int64_t block) const { return scales + 2 * block * tokens; }
  const float* ScaledSums(int64_t block) const { return Scales(block) + tokens; }

  const int64_t tokens;
  const uint8_t* const bytes;
  const float *const scales, *const minus;
};

// A few panels with the tokens of a kernel.
template <class Weights, int kHalves, int kPanels>
class BytePanels {
 public:
  BytePanels(const PanelProduct& product, int tokens, int64_t panel)
      : p_(product), x_(product, tokens), panel_(panel) {
    for (int64_t t = 0; t < tokens; ++t) {
      const F start = Weights::kUnpacks ? Zero() : Splat(x_.minus[t]);
      for (int k = 0; k < kPanels; ++k) Store(totals_[k][t], start);
    }
  }

  // Adds kBlocks blocks from `begin` on.
  template <int kBlocks>
  void Add(int64_t begin) {
    Weights weights[kBlocks][kPanels];
    alignas(64) uint8_t unpacked[Weights::kUnpacks ? kBlocks * kPanels * kTileBytes : 1];
    for (int b = 0; b < kBlocks; ++b) {
      const int64_t done = (begin + b) * BlockBytes(Weights::kFormat);
      const int64_t ahead = PrefetchDistance<kPanels>(p_, done);
      for (int k = 0; k < kPanels; ++k) {
        Prefetch<BlockBytes(Weights::kFormat) / kWordRowBytes>(Panel(k) + done + ahead);
        weights[b][k] = Weights(Panel(k), p_.blocks, begin + b);
        if constexpr (Weights::kUnpacks) {
          UnpackNibbles(weights[b][k].block, unpacked + (b * kPanels + k) * kTileBytes);
        }
      }
    }
    Sums<int32_t> sums[kBlocks];
    Multiply<kBlocks>(begin, unpacked, sums);
    for (int half = 0; half < kHalves; ++half) {
      const int64_t first = half * kTileRows, end = Smaller(x_.tokens, first + kTileRows);
      for (int64_t t = first; t < end; ++t) {
#pragma GCC unroll 4
        for (int k = 0; k < kPanels; ++k) {
          F total = Load(totals_[k][t]);
#pragma GCC unroll 2
          for (int b = 0; b < kBlocks; ++b) {
            const I sum = LoadWords(sums[b].of[SumsOf<kHalves>(k, half)][t - first]);
            total = weights[b][k].Added(ToFloat(sum), Splat(x_.Scales(begin + b)[t]),
                                        Splat(x_.ScaledSums(begin + b)[t]), total);
          }
          Store(totals_[k][t], total);
        }
      }
    }
  }

  void Write() const {
    for (int k = 0; k < kPanels; ++k) {
      for (int64_t t = 0; t < x_.tokens; ++t) {
        F total = Load(totals_[k][t]);
        if constexpr (!Weights::kUnpacks) {
          total = Mul(total, Int8Block(Panel(k), p_.blocks, 0).scale);
        }
        WriteToken(p_, panel_ + k, t, total);
      }
    }
  }

 private:
  const uint8_t* Panel(int k) const { return p_.panels + (panel_ + k) * p_.panel_bytes; }

  template <int kBlocks, int b = 0>
  void Multiply(int64_t begin, const uint8_t* unpacked, Sums<int32_t>* sums) const {
    if constexpr (b < kBlocks) {
      ZeroSums<kHalves, kPanels>();
      const uint8_t* weights = unpacked + b * kPanels * kTileBytes;
      int64_t panel_bytes = kTileBytes;
      if constexpr (!Weights::kUnpacks) {
        weights = Panel(0) + (begin + b) * BlockBytes(Weights::kFormat);
        panel_bytes = p_.panel_bytes;
      }
      AddTiles<ByteTile, kHalves, kPanels>(x_.Inputs(begin + b), weights, panel_bytes);
      StoreSums<kHalves, kPanels>(&sums[b]);
      Multiply<kBlocks, b + 1>(begin, unpacked, sums);
    }
  }

  const PanelProduct& p_;
  const PackedBytes x_;
  const int64_t panel_;
  alignas(64) float totals_[kPanels][kHalves * kTileRows][kPanelOutputs];
};

template <class Weights, int kHalves, int kPanels>
void MultiplyBytePanels(const PanelProduct& p, int tokens, int64_t panel) {
  BytePanels<Weights, kHalves, kPanels> panels(p, tokens, panel);
  int64_t b = 0;
  for (; b + kGroupBlocks <= p.blocks; b += kGroupBlocks) panels.template Add<kGroupBlocks>(b);
  for (; b < p.blocks; ++b) panels.template Add<1>(b);
  panels.Write();
}

struct BFloat16Products {
  using Tile = BFloat16Tile;
  template <int kHalves, int kPanels>
  static void Multiply(const PanelProduct& p, int tokens, int64_t panel) {
    BFloat16Panels<kHalves, kPanels>(p, tokens, panel);
  }
};
template <class Weights>
struct ByteProducts {
  using Tile = ByteTile;
  template <int kHalves, int kPanels>
  static void Multiply(const PanelProduct& p, int tokens, int64_t panel) {
    MultiplyBytePanels<Weights, kHalves, kPanels>(p, tokens, panel);
  }
};

template <class Products, int kHalves>
void MultiplyPanels(const PanelProduct& p, int tokens) {
  constexpr int kMany = kPanelsOfHalves<kHalves>;
  const int64_t panels = PanelsOf(p.outputs);
  int64_t panel = 0;
  for (; panel + kMany <= panels; panel += kMany) {
    Products::template Multiply<kHalves, kMany>(p, tokens, panel);
  }
  for (; panel < panels; ++panel) Products::template Multiply<kHalves, 1>(p, tokens, panel);
}

template <class Products>
void Multiply(const PanelProduct& p, int tokens) {
  SetShapes<typename Products::Tile>(tokens);
  if (tokens <= kTileRows) {
    MultiplyPanels<Products, 1>(p, tokens);
  } else {
    MultiplyPanels<Products, 2>(p, tokens);
  }
  ReleaseTiles();
}

void PackBFloat16(const Activations& a) {
  float rest[kBlockInputs];
  uint32_t* out = a.packed + a.begin * a.tokens * (kBlockInputs / 2);
  for (int64_t b = a.begin; b < a.end; ++b) {
    for (int t = 0; t < a.tokens; ++t, out += kBlockInputs / 2) {
      StoreBFloat16(out, BlockOf(a, t, b, rest));
    }
  }
}

constexpr int64_t kByteWords = kBlockInputs / 4;  // of a block of a token

void PackBytes(const Activations& a) {
  uint32_t words[kLanes * kInt8BlockWords];
  uint32_t* const scales = a.packed + BlocksOf(a.in) * a.tokens * kByteWords;
  ForBlocks(a, [&](const float* const(&blocks)[kLanes], int n, int64_t first) {
    QuantizeBlocks(blocks, n, words);
    for (int i = 0; i < n; ++i) {
      const uint32_t* block = words + i * kInt8BlockWords;
      const int64_t number = (first + i) / a.tokens, token = (first + i) % a.tokens;
      std::memcpy(a.packed + (first + i) * kByteWords, block, kByteWords * sizeof(*block));
      uint32_t* const scale = scales + 2 * number * a.tokens + token;
      scale[0] = block[kByteWords];
      scale[a.tokens] = block[kByteWords + 1];
    }
  });
}

void FinishBytes(uint32_t* packed, int64_t blocks, int tokens) {
  const uint32_t* sums = packed + blocks * tokens * kByteWords + tokens;
  float minus[kMostTileTokens] = {};
  for (int64_t b = 0; b < blocks; ++b, sums += 2 * tokens) {
    for (int t = 0; t < tokens; ++t) minus[t] -= 128 * FloatOf(sums[t]);
  }
  std::memcpy(packed + blocks * tokens * (kByteWords + 2), minus, tokens * sizeof(float));
}

constexpr TileKernels AllKernels() noexcept {
  TileKernels kernels{};
  kernels.least_int8_tokens = 4;
  kernels.products[static_cast<int>(PanelFormat::kBFloat16)] = &Multiply<BFloat16Products>;
  kernels.products[static_cast<int>(PanelFormat::kQ4)] = &Multiply<ByteProducts<NibbleTile>>;
  kernels.products[static_cast<int>(PanelFormat::kInt8)] = &Multiply<ByteProducts<Int8Bytes>>;
  kernels.bfloat16_activations = {&PackBFloat16, nullptr};
  kernels.int8_activations = {&PackBytes, &FinishBytes};
  return kernels;
}

}  // namespace

extern const TileKernels kTileKernels;
const TileKernels kTileKernels = AllKernels();

}  // namespace LMFUSION_SIMD
}  // namespace lmfusion
