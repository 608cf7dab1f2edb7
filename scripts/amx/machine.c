/* Whether the emulated CPU's tiles do what Intel's manual says, against plain loops: run before the tests,
   so that what they find is a fault of the kernels and not of the machine. */
#include <cpuid.h>
#include <immintrin.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TILES __attribute__((target("amx-tile,amx-int8,amx-bf16")))
enum { kRequestPermission = 0x1023, kTileData = 18 };

struct Shapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

/* GCC's intrinsics say neither that tiles are loaded from memory nor that a shape is more than 8 bytes:
   without this what was stored there may be left out. */
static void Stored(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

static uint32_t Random(void) {
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return state >> 8;
}

static float Value(uint16_t bfloat16) {
  const uint32_t bits = (uint32_t)bfloat16 << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Tile 0 is m x n sums, tile 1 m x 4k bytes of a, tile 2 k x 4n bytes of b. */
TILES static void Shape(int m, int k, int n) {
  struct Shapes shapes = {.palette = 1};
  shapes.rows[0] = shapes.rows[1] = m;
  shapes.rows[2] = k;
  shapes.row_bytes[0] = shapes.row_bytes[2] = 4 * n;
  shapes.row_bytes[1] = 4 * k;
  Stored(&shapes);
  _tile_loadconfig(&shapes);
}

/* The differences of int8 products with each kind of sign, and of bfloat16 products of small integers,
   whose sums are exact in any order. */
TILES static int Products(int m, int k, int n) {
  uint8_t a[16][64], b[16][64];
  uint16_t p[16][32], q[16][32];
  int32_t sums[16][16];
  float values[16][16];
  int wrong = 0;
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 64; ++j) {
      a[i][j] = Random();
      b[i][j] = Random();
    }
    for (int j = 0; j < 32; ++j) {
      const float x = (int)(Random() % 255) - 127, y = (int)(Random() % 255) - 127;
      uint32_t bits;
      memcpy(&bits, &x, sizeof bits);
      p[i][j] = bits >> 16;
      memcpy(&bits, &y, sizeof bits);
      q[i][j] = bits >> 16;
    }
  }
  Stored(a);
  Stored(b);
  Stored(p);
  Stored(q);
  Shape(m, k, n);
  for (int signs = 0; signs < 4; ++signs) {
    _tile_zero(0);
    _tile_loadd(1, a, 64);
    _tile_loadd(2, b, 64);
    if (signs == 0) _tile_dpbuud(0, 1, 2);
    if (signs == 1) _tile_dpbsud(0, 1, 2);
    if (signs == 2) _tile_dpbusd(0, 1, 2);
    if (signs == 3) _tile_dpbssd(0, 1, 2);
    _tile_stored(0, sums, 64);
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < n; ++j) {
        int sum = 0;
        for (int l = 0; l < 4 * k; ++l) {
          const uint8_t x = a[i][l], y = b[l / 4][4 * j + l % 4];
          sum += (signs & 1 ? (int8_t)x : x) * (signs & 2 ? (int8_t)y : y);
        }
        wrong += sums[i][j] != sum;
      }
    }
  }
  _tile_zero(0);
  _tile_loadd(1, p, 64);
  _tile_loadd(2, q, 64);
  _tile_dpbf16ps(0, 1, 2);
  _tile_stored(0, values, 64);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      float sum = 0;
      for (int l = 0; l < 2 * k; ++l) sum += Value(p[i][l]) * Value(q[l / 2][2 * j + l % 2]);
      wrong += values[i][j] != sum;
    }
  }
  _tile_release();
  return wrong;
}

/* Two processes that take turns on the only CPU, each with tiles of its own. */
TILES static int Turns(void) {
  uint8_t mine[16][64], kept[16][64];
  int wrong = 0, status = 1;
  const pid_t child = fork();
  for (int i = 0; i < 16 * 64; ++i) mine[i / 64][i % 64] = Random() + (child == 0);
  Stored(mine);
  Shape(16, 16, 16);
  _tile_loadd(1, mine, 64);
  for (int i = 0; i < 100; ++i) {
    sched_yield();
    _tile_stored(1, kept, 64);
    wrong += memcmp(mine, kept, sizeof mine) != 0;
  }
  _tile_release();
  if (child == 0) _exit(wrong != 0);
  waitpid(child, &status, 0);
  return wrong + status;
}

static int StoppedWithoutPermission(void) {
  int status = 0;
  const pid_t child = fork();
  if (child == 0) {
    Shape(16, 16, 16);
    _exit(0);
  }
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGILL;
}

int main(void) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  __get_cpuid_count(7, 0, &a, &b, &c, &d);
  if ((~d & (bit_AMX_TILE | bit_AMX_INT8 | bit_AMX_BF16)) != 0) return puts("no AMX"), 1;
  if (!StoppedWithoutPermission()) return puts("tiles without permission"), 1;
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) return puts("no permission"), 1;
  int wrong = Products(16, 16, 16) + Products(5, 3, 7) + Products(1, 16, 1);
  if (wrong != 0) return printf("%d wrong sums\n", wrong), 1;
  if (Turns() != 0) return puts("tiles lost between processes"), 1;
  puts("The machine's tiles are right.");
  return 0;
}
