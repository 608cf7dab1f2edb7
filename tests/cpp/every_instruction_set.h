#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/simd/instruction_set.h"

namespace lmfusion {

// A test that runs once with each instruction set of this CPU:
//   class Subject : public EveryInstructionSet {};
//   INSTANTIATE_TEST_SUITE_P(Every, Subject, InstructionSets(), NameOfSet);
class EveryInstructionSet : public testing::TestWithParam<InstructionSet> {
 protected:
  void SetUp() override { SetInstructionSet(GetParam()); }
  void TearDown() override { SetInstructionSet(BestInstructionSet()); }
};

inline std::vector<InstructionSet> AllInstructionSets() {
  std::vector<InstructionSet> sets;
  for (const InstructionSet set : kInstructionSets) {
    if (Has(FeaturesOfThisCpu(), set)) sets.push_back(set);
  }
  return sets;
}
inline auto InstructionSets() { return testing::ValuesIn(AllInstructionSets()); }
inline std::string NameOfSet(const testing::TestParamInfo<InstructionSet>& info) {
  return Name(info.param);
}

}  // namespace lmfusion
