#pragma once

namespace lmfusion {

// What the kernels of this process may use; each is a superset of the one before.
enum class InstructionSet : int {
  kPortable,  // the compiler's own vectors
  kAvx2,      // AVX2, FMA, F16C
  kAvx512,    // AVX-512 F, BW, DQ, VL, VNNI; BF16 where the CPU has it
};

const char* Name(InstructionSet set);
InstructionSet BestInstructionSet();  // of this CPU
InstructionSet CurrentInstructionSet();

// For tests and benchmarks. Throws std::invalid_argument where this CPU does not have it.
void SetInstructionSet(InstructionSet set);

}  // namespace lmfusion
