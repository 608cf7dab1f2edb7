#pragma once

namespace lmfusion {

// What the kernels may use, on each kind of CPU the slowest first.
enum class InstructionSet : int {
  kPortable,        // the compiler's own vectors
  kAvx2,            // AVX2, FMA, F16C
  kAvx2Vnni,        // AVX-VNNI too
  kAvx512,          // AVX-512 F, BW, DQ, VL, VNNI
  kAvx512BFloat16,  // AVX-512 BF16 too
  kAmx,             // AMX too: tile registers, their products of bytes and of bfloat16
  kNeon,            // Advanced SIMD of 64-bit Arm
  kNeonDot,         // its products of bytes too
};
inline constexpr InstructionSet kInstructionSets[] = {
    InstructionSet::kPortable, InstructionSet::kAvx2,           InstructionSet::kAvx2Vnni,
    InstructionSet::kAvx512,   InstructionSet::kAvx512BFloat16, InstructionSet::kAmx,
    InstructionSet::kNeon,     InstructionSet::kNeonDot};

const char* Name(InstructionSet set);

// What a CPU has, where the system saves and restores the registers of it.
struct CpuFeatures {
  bool avx2 = false, fma = false, f16c = false, avxvnni = false;
  bool avx512f = false, avx512bw = false, avx512dq = false, avx512vl = false, avx512vnni = false;
  bool avx512bf16 = false;
  bool amx_tile = false, amx_int8 = false, amx_bf16 = false;
  // Asks the system for tile registers, which Linux saves and restores for programs that asked
  // (their signal frames grow by 8 KB); false: it refused. Null: there is none to ask.
  bool (*tiles_granted)() = nullptr;
  bool neon = false, neon_dot = false;
};
CpuFeatures FeaturesOfThisCpu();
// Asks for tile registers only where `set` is kAmx and the CPU has all else that it takes.
bool Has(const CpuFeatures& cpu, InstructionSet set);
InstructionSet BestInstructionSet(const CpuFeatures& cpu);
InstructionSet BestInstructionSet();  // of this CPU

// The set of this process: the best one that the environment variable LMFUSION_CPU allows (the name
// of a set; none or a name that is no set's: the best one). Weights packed under one are
// read under any other. May be set at any time: each operator asks once, when it begins, so those
// that run meanwhile end as they began, and later ones, on all threads, use the new set. Throws
// std::invalid_argument where this CPU does not have it.
InstructionSet CurrentInstructionSet();
void SetInstructionSet(InstructionSet set);

// Declares kTable of every namespace of Note [Lanes] (kernels/simd/lanes.h), and CurrentTable(),
// the one for CurrentInstructionSet().
#define LMFUSION_TABLE(set, Table) \
  namespace set {                  \
  extern const Table k##Table;     \
  }
#if defined(__x86_64__) && defined(__GNUC__)
#define LMFUSION_KERNELS(Table)                                   \
  LMFUSION_TABLE(portable, Table)                                 \
  LMFUSION_TABLE(avx2, Table)                                     \
  LMFUSION_TABLE(avx2_vnni, Table)                                \
  LMFUSION_TABLE(avx512, Table)                                   \
  inline const Table& Current##Table() {                          \
    switch (CurrentInstructionSet()) {                            \
      case InstructionSet::kAvx2: return avx2::k##Table;          \
      case InstructionSet::kAvx2Vnni: return avx2_vnni::k##Table; \
      case InstructionSet::kAvx512:                               \
      case InstructionSet::kAvx512BFloat16:                       \
      case InstructionSet::kAmx: return avx512::k##Table;         \
      default: return portable::k##Table;                         \
    }                                                             \
  }
#elif defined(__aarch64__) && defined(__GNUC__)
#define LMFUSION_KERNELS(Table)                                 \
  LMFUSION_TABLE(portable, Table)                               \
  LMFUSION_TABLE(neon, Table)                                   \
  LMFUSION_TABLE(neon_dot, Table)                               \
  inline const Table& Current##Table() {                        \
    switch (CurrentInstructionSet()) {                          \
      case InstructionSet::kNeon: return neon::k##Table;        \
      case InstructionSet::kNeonDot: return neon_dot::k##Table; \
      default: return portable::k##Table;                       \
    }                                                           \
  }
#else
#define LMFUSION_KERNELS(Table)   \
  LMFUSION_TABLE(portable, Table) \
  inline const Table& Current##Table() { return portable::k##Table; }
#endif

}  // namespace lmfusion
