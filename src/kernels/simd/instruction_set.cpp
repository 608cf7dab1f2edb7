#include "kernels/simd/instruction_set.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#endif

#include <atomic>
#include <stdexcept>
#include <string>

namespace lmfusion {
namespace {

std::atomic<InstructionSet>& Current() {
  static std::atomic<InstructionSet> current{BestInstructionSet()};
  return current;
}

}  // namespace

const char* Name(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPortable: return "portable";
    case InstructionSet::kAvx2: return "avx2";
    case InstructionSet::kAvx512: return "avx512";
    case InstructionSet::kAvx512BFloat16: return "avx512_bf16";
  }
  return "";
}

InstructionSet BestInstructionSet(const CpuFeatures& cpu) {
  if (!cpu.avx2 || !cpu.fma || !cpu.f16c) return InstructionSet::kPortable;
  if (!cpu.avx512f || !cpu.avx512bw || !cpu.avx512dq || !cpu.avx512vl || !cpu.avx512vnni) {
    return InstructionSet::kAvx2;
  }
  return cpu.avx512bf16 ? InstructionSet::kAvx512BFloat16 : InstructionSet::kAvx512;
}

InstructionSet BestInstructionSet() {
  CpuFeatures cpu;
#if defined(__x86_64__) && defined(__GNUC__)
  cpu.avx2 = __builtin_cpu_supports("avx2");
  cpu.fma = __builtin_cpu_supports("fma");
  // Not every compiler has a name for it; its registers are those of AVX2.
  unsigned a = 0, b = 0, c = 0, d = 0;
  cpu.f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  cpu.avx512f = __builtin_cpu_supports("avx512f");
  cpu.avx512bw = __builtin_cpu_supports("avx512bw");
  cpu.avx512dq = __builtin_cpu_supports("avx512dq");
  cpu.avx512vl = __builtin_cpu_supports("avx512vl");
  cpu.avx512vnni = __builtin_cpu_supports("avx512vnni");
  cpu.avx512bf16 = __builtin_cpu_supports("avx512bf16");
#endif
  return BestInstructionSet(cpu);
}

InstructionSet CurrentInstructionSet() { return Current().load(std::memory_order_relaxed); }

void SetInstructionSet(InstructionSet set) {
  if (set > BestInstructionSet()) {
    throw std::invalid_argument(std::string("instruction set ") + Name(set) +
                                ": this CPU has no more than " + Name(BestInstructionSet()));
  }
  Current() = set;
}

}  // namespace lmfusion
