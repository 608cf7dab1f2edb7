#include "software_tiles.h"

#include <cfloat>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace lmfusion {
namespace software_tiles {
namespace {

constexpr int kTiles = 8, kRows = 16, kRowBytes = 64;

struct Tile {
  int rows = 0, row_bytes = 0;
  uint8_t bytes[kRows][kRowBytes] = {};

  template <class T>
  T Get(int row, int i) const {
    T value;
    std::memcpy(&value, bytes[row] + i * sizeof(T), sizeof(T));
    return value;
  }
  template <class T>
  void Set(int row, int i, T value) {
    std::memcpy(bytes[row] + i * sizeof(T), &value, sizeof(T));
  }
};

struct Registers {
  bool shaped = false;
  Tile tiles[kTiles];
};
thread_local Registers registers;

[[noreturn]] void Fault(const char* what) {
  std::fprintf(stderr, "tiles: %s\n", what);
  std::abort();
}

Tile& Shaped(int tile) {
  if (!registers.shaped) Fault("no shapes are set");
  Tile& found = registers.tiles[tile];
  if (found.rows == 0) Fault("the register has no shape");
  return found;
}

void CheckShapes(int sums, int inputs, int weights) {
  if (sums == inputs || sums == weights || inputs == weights) Fault("a register is used twice");
  const Tile &c = Shaped(sums), &a = Shaped(inputs), &b = Shaped(weights);
  if (c.rows != a.rows) Fault("sums and inputs of unlike rows");
  if (c.row_bytes != b.row_bytes) Fault("sums and weights of unlike width");
  if (a.row_bytes != 4 * b.rows) Fault("inputs as wide as there are not weights");
}

// Denormals are zeros, of the same sign.
float Flushed(float x) { return std::abs(x) < FLT_MIN ? std::copysign(0.0f, x) : x; }

float OfBFloat16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return Flushed(value);
}

}  // namespace

thread_local TileCounts counts;

namespace {

// Every sum becomes added(inputs, weights, row, column, sum).
template <class Number, class Added>
void ForSums(int sums, int inputs, int weights, Added added) {
  ++counts.products;
  CheckShapes(sums, inputs, weights);
  Tile& c = registers.tiles[sums];
  const Tile &a = registers.tiles[inputs], &b = registers.tiles[weights];
  for (int m = 0; m < c.rows; ++m) {
    for (int n = 0; n < c.row_bytes / 4; ++n) c.Set(m, n, added(a, b, m, n, c.Get<Number>(m, n)));
  }
}

}  // namespace

void SetTileShapes(const void* shapes) {
  uint8_t bytes[64];
  std::memcpy(bytes, shapes, sizeof(bytes));
  ++counts.shapes;
  if (bytes[0] != 1) Fault("palette 1 is the only one");
  for (int i = 1; i < 16; ++i) {
    if (bytes[i] != 0) Fault("a reserved byte, or a start row, is set");
  }
  registers = Registers();
  registers.shaped = true;
  for (int i = 0; i < 16; ++i) {
    uint16_t row_bytes;
    std::memcpy(&row_bytes, bytes + 16 + 2 * i, sizeof(row_bytes));
    const int rows = bytes[48 + i];
    if (i >= kTiles && (rows != 0 || row_bytes != 0)) Fault("a register beyond the eighth");
    if ((rows == 0) != (row_bytes == 0)) Fault("rows without bytes, or bytes without rows");
    if (rows > kRows || row_bytes > kRowBytes) Fault("a register is too large");
    if (i >= kTiles) continue;
    registers.tiles[i].rows = rows;
    registers.tiles[i].row_bytes = row_bytes;
  }
}

void ReleaseTiles() {
  ++counts.releases;
  registers = Registers();
}

void Zero(int tile) { std::memset(Shaped(tile).bytes, 0, sizeof(Tile::bytes)); }

void Load(int tile, const void* rows, int64_t stride) {
  ++counts.loads;
  Tile& to = Shaped(tile);
  for (int row = 0; row < to.rows; ++row) {
    std::memcpy(to.bytes[row], static_cast<const uint8_t*>(rows) + row * stride, to.row_bytes);
  }
}

void StoreRows(int tile, void* rows, int64_t stride) {
  ++counts.stores;
  const Tile& from = Shaped(tile);
  for (int row = 0; row < from.rows; ++row) {
    std::memcpy(static_cast<uint8_t*>(rows) + row * stride, from.bytes[row], from.row_bytes);
  }
}

void AddBFloat16(int sums, int inputs, int weights) {
  ForSums<float>(sums, inputs, weights, [](const Tile& a, const Tile& b, int m, int n, float sum) {
    float of[2] = {0, 0};
    for (int k = 0; k < b.rows; ++k) {
      for (int i = 0; i < 2; ++i) {
        of[i] = Flushed(std::fma(OfBFloat16(a.Get<uint16_t>(m, 2 * k + i)),
                                 OfBFloat16(b.Get<uint16_t>(k, 2 * n + i)), of[i]));
      }
    }
    const float both = Flushed(of[0] + of[1]);
    return Flushed(Flushed(sum) + both);
  });
}

void AddBytes(int sums, int inputs, int weights) {
  ForSums<int32_t>(sums, inputs, weights,
                   [](const Tile& a, const Tile& b, int m, int n, int32_t sum) {
                     for (int k = 0; k < b.rows; ++k) {
                       for (int i = 0; i < 4; ++i) {
                         sum += int32_t{a.Get<int8_t>(m, 4 * k + i)} * b.Get<uint8_t>(k, 4 * n + i);
                       }
                     }
                     return sum;
                   });
}

void StoreBFloat16(void* to, const float* x) {
  for (int i = 0; i < 32; ++i) {
    const float flushed = Flushed(x[i]);
    uint32_t bits;
    std::memcpy(&bits, &flushed, sizeof(bits));
    if (std::isnan(flushed)) {
      bits |= 1u << 22;  // a quiet one
    } else {
      bits += 0x7fff + (bits >> 16 & 1);
    }
    const auto rounded = static_cast<uint16_t>(bits >> 16);
    std::memcpy(static_cast<uint8_t*>(to) + 2 * i, &rounded, sizeof(rounded));
  }
}

}  // namespace software_tiles
}  // namespace lmfusion
