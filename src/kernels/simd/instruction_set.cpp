#include "kernels/simd/instruction_set.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(LMFUSION_AMX) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lmfusion {
namespace {

// The best set of this CPU, or the best up to the one named `most`.
InstructionSet BestUpTo(const CpuFeatures& cpu, const char* most) {
  InstructionSet best = InstructionSet::kPortable;
  for (const InstructionSet set : kInstructionSets) {
    if (Has(cpu, set)) best = set;
    if (most != nullptr && most == std::string(Name(set))) break;
  }
  return best;
}

#if defined(LMFUSION_AMX) && defined(__linux__)
constexpr unsigned kTileState = 17, kTileDataState = 18;  // parts of a thread's registers

// For this process and all of its threads. Asked again it answers as before.
bool TilesGranted() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM, Linux 5.16
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileDataState) == 0;
  return granted;
}

// Whether the system has switched tile registers on at all.
bool SystemHasTiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return false;
  asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  constexpr unsigned kBoth = 1u << kTileState | 1u << kTileDataState;
  return (a & kBoth) == kBoth;
}

void AddTileFeatures(CpuFeatures* cpu) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!SystemHasTiles() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return;
  cpu->amx_bf16 = (d & (1u << 22)) != 0;
  cpu->amx_tile = (d & (1u << 24)) != 0;
  cpu->amx_int8 = (d & (1u << 25)) != 0;
  cpu->tiles_granted = &TilesGranted;
}
#endif

std::atomic<InstructionSet>& Current() {
  // Read once, and nothing here sets a variable of the environment.
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  const char* const most = std::getenv("LMFUSION_CPU");
  static std::atomic<InstructionSet> current{BestUpTo(FeaturesOfThisCpu(), most)};
  return current;
}

}  // namespace

const char* Name(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPortable: return "portable";
    case InstructionSet::kAvx2: return "avx2";
    case InstructionSet::kAvx2Vnni: return "avx2_vnni";
    case InstructionSet::kAvx512: return "avx512";
    case InstructionSet::kAvx512BFloat16: return "avx512_bf16";
    case InstructionSet::kAmx: return "amx";
    case InstructionSet::kNeon: return "neon";
    case InstructionSet::kNeonDot: return "neon_dot";
  }
  return "";
}

bool Has(const CpuFeatures& cpu, InstructionSet set) {
  const bool avx2 = cpu.avx2 && cpu.fma && cpu.f16c;
  const bool avx512 =
      avx2 && cpu.avx512f && cpu.avx512bw && cpu.avx512dq && cpu.avx512vl && cpu.avx512vnni;
  switch (set) {
    case InstructionSet::kPortable: return true;
    case InstructionSet::kAvx2: return avx2;
    case InstructionSet::kAvx2Vnni: return avx2 && cpu.avxvnni;
    case InstructionSet::kAvx512: return avx512;
    case InstructionSet::kAvx512BFloat16: return avx512 && cpu.avx512bf16;
    case InstructionSet::kAmx:
      return avx512 && cpu.avx512bf16 && cpu.amx_tile && cpu.amx_int8 && cpu.amx_bf16 &&
             cpu.tiles_granted != nullptr && cpu.tiles_granted();
    case InstructionSet::kNeon: return cpu.neon;
    case InstructionSet::kNeonDot: return cpu.neon && cpu.neon_dot;
  }
  return false;
}

InstructionSet BestInstructionSet(const CpuFeatures& cpu) { return BestUpTo(cpu, nullptr); }

CpuFeatures FeaturesOfThisCpu() {
  CpuFeatures cpu;
#if defined(__x86_64__) && defined(__GNUC__)
  cpu.avx2 = __builtin_cpu_supports("avx2");
  cpu.fma = __builtin_cpu_supports("fma");
  // Not every compiler has names for these two; their registers are those of AVX2.
  unsigned a = 0, b = 0, c = 0, d = 0;
  cpu.f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  cpu.avxvnni = __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1u << 4)) != 0;
  cpu.avx512f = __builtin_cpu_supports("avx512f");
  cpu.avx512bw = __builtin_cpu_supports("avx512bw");
  cpu.avx512dq = __builtin_cpu_supports("avx512dq");
  cpu.avx512vl = __builtin_cpu_supports("avx512vl");
  cpu.avx512vnni = __builtin_cpu_supports("avx512vnni");
  cpu.avx512bf16 = __builtin_cpu_supports("avx512bf16");
#if defined(LMFUSION_AMX) && defined(__linux__)
  AddTileFeatures(&cpu);
#endif
#elif defined(__aarch64__) && defined(__GNUC__)
  cpu.neon = true;
#if defined(__linux__)
  cpu.neon_dot = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#endif
#endif
  return cpu;
}

InstructionSet BestInstructionSet() { return BestInstructionSet(FeaturesOfThisCpu()); }

InstructionSet CurrentInstructionSet() { return Current().load(std::memory_order_relaxed); }

void SetInstructionSet(InstructionSet set) {
  if (!Has(FeaturesOfThisCpu(), set)) {
    throw std::invalid_argument(std::string("instruction set ") + Name(set) +
                                ": this CPU does not have it; its best is " +
                                Name(BestInstructionSet()));
  }
  Current() = set;
}

}  // namespace lmfusion
