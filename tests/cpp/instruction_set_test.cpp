#include "kernels/simd/instruction_set.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

namespace lmfusion {
namespace {

TEST(InstructionSetTest, AsksForEveryFeatureThatItsKernelsUse) {
  CpuFeatures cpu;
  cpu.avx2 = cpu.fma = cpu.f16c = true;
  EXPECT_EQ(BestInstructionSet(cpu), InstructionSet::kAvx2);
  for (bool CpuFeatures::*feature : {&CpuFeatures::avx2, &CpuFeatures::fma, &CpuFeatures::f16c}) {
    CpuFeatures without = cpu;
    without.*feature = false;
    EXPECT_EQ(BestInstructionSet(without), InstructionSet::kPortable);
  }
  cpu.avxvnni = true;
  EXPECT_EQ(BestInstructionSet(cpu), InstructionSet::kAvx2Vnni);
  cpu.avxvnni = false;
  cpu.avx512f = cpu.avx512bw = cpu.avx512dq = cpu.avx512vl = cpu.avx512vnni = true;
  EXPECT_EQ(BestInstructionSet(cpu), InstructionSet::kAvx512);
  for (bool CpuFeatures::*feature :
       {&CpuFeatures::avx512f, &CpuFeatures::avx512bw, &CpuFeatures::avx512dq,
        &CpuFeatures::avx512vl, &CpuFeatures::avx512vnni}) {
    CpuFeatures without = cpu;
    without.*feature = false;
    without.avx512bf16 = true;
    EXPECT_EQ(BestInstructionSet(without), InstructionSet::kAvx2);
  }
  cpu.avx512bf16 = true;
  EXPECT_EQ(BestInstructionSet(cpu), InstructionSet::kAvx512BFloat16);
}

TEST(InstructionSetTest, TilesTakeAllOfTheirFeaturesAndTheSystem) {
  static int asked = 0;
  CpuFeatures cpu;
  cpu.avx2 = cpu.fma = cpu.f16c = true;
  cpu.avx512f = cpu.avx512bw = cpu.avx512dq = cpu.avx512vl = cpu.avx512vnni = cpu.avx512bf16 = true;
  cpu.amx_tile = cpu.amx_int8 = cpu.amx_bf16 = true;
  cpu.tiles_granted = [] { return ++asked > 0; };
  EXPECT_EQ(BestInstructionSet(cpu), InstructionSet::kAmx);
  EXPECT_EQ(asked, 1);
  for (bool CpuFeatures::*feature : {&CpuFeatures::avx512bf16, &CpuFeatures::amx_tile,
                                     &CpuFeatures::amx_int8, &CpuFeatures::amx_bf16}) {
    CpuFeatures without = cpu;
    without.*feature = false;
    const bool bfloat16 = without.avx512bf16;
    EXPECT_EQ(BestInstructionSet(without),
              bfloat16 ? InstructionSet::kAvx512BFloat16 : InstructionSet::kAvx512);
  }
  // Nobody asks who does not need them.
  EXPECT_TRUE(Has(cpu, InstructionSet::kAvx512BFloat16));
  EXPECT_EQ(asked, 1);
  cpu.tiles_granted = [] { return false; };
  EXPECT_EQ(BestInstructionSet(cpu), InstructionSet::kAvx512BFloat16);
  cpu.tiles_granted = nullptr;
  EXPECT_EQ(BestInstructionSet(cpu), InstructionSet::kAvx512BFloat16);
}

TEST(InstructionSetTest, OfArm) {
  CpuFeatures cpu;
  cpu.neon = true;
  EXPECT_EQ(BestInstructionSet(cpu), InstructionSet::kNeon);
  cpu.neon_dot = true;
  EXPECT_EQ(BestInstructionSet(cpu), InstructionSet::kNeonDot);
  cpu.neon = false;
  EXPECT_EQ(BestInstructionSet(cpu), InstructionSet::kPortable);
}

TEST(InstructionSetTest, WhatTheCpuHasNotIsRefusedByItsName) {
  int refused = 0;  // those of another architecture, at least
  for (const InstructionSet set : kInstructionSets) {
    if (Has(FeaturesOfThisCpu(), set)) continue;
    try {
      SetInstructionSet(set);
      ADD_FAILURE() << Name(set);
    } catch (const std::invalid_argument& error) {
      EXPECT_EQ(std::string(error.what()).find(std::string("instruction set ") + Name(set)), 0u);
      ++refused;
    }
  }
  EXPECT_GT(refused, 0);
}

TEST(InstructionSetTest, IsTheBestUntilItIsSet) {
  EXPECT_EQ(CurrentInstructionSet(), BestInstructionSet());
  SetInstructionSet(InstructionSet::kPortable);
  EXPECT_EQ(CurrentInstructionSet(), InstructionSet::kPortable);
  SetInstructionSet(BestInstructionSet());
  for (const InstructionSet set :
       {InstructionSet::kAvx2Vnni, InstructionSet::kAvx512BFloat16, InstructionSet::kAmx}) {
    if (Has(FeaturesOfThisCpu(), set)) continue;
    EXPECT_THROW(SetInstructionSet(set), std::invalid_argument);
    EXPECT_EQ(CurrentInstructionSet(), BestInstructionSet());
  }
}

}  // namespace
}  // namespace lmfusion
