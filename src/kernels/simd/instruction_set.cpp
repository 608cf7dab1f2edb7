#include "kernels/simd/instruction_set.h"

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
  }
  return "";
}

InstructionSet BestInstructionSet() {
#if defined(__x86_64__) && defined(__GNUC__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni")) {
    return InstructionSet::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return InstructionSet::kAvx2;
  }
#endif
  return InstructionSet::kPortable;
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
