#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/jit/api/module.h>

#include <cstddef>
#include <map>

#include "engine/graph_nodes.h"

namespace lmfusion {

// What attributes share where they are tied.
inline const void* MemoryOf(const Attribute& attribute) {
  return attribute.value().toTensor().storage().data();
}

// How often a graph reads each tensor of its module, so that a pass over the graph knows when it
// has replaced the last reader of a weight.
class WeightReadings {
 public:
  // Counts those in all blocks of a graph. The output matrix is read once more, by the output
  // layer.
  WeightReadings(const torch::jit::Module& module, torch::jit::Block* block) {
    Count(module, block);
    ++readings_[MemoryOf(Attribute{module._ivalue(), "output_weight"})];
  }

  // Counts one reading off; true where it was the last one, so that nothing needs the weight.
  bool IsLast(const Attribute& attribute) { return --readings_.at(MemoryOf(attribute)) == 0; }

 private:
  void Count(const torch::jit::Module& module, torch::jit::Block* block) {
    for (torch::jit::Node* node : block->nodes()) {
      for (torch::jit::Block* inner : node->blocks()) Count(module, inner);
      if (node->kind() != c10::prim::GetAttr) continue;
      const std::optional<Attribute> attribute = AttributeOf(module, node->output());
      if (attribute && attribute->value().isTensor()) {
        readings_[MemoryOf(*attribute)] += node->output()->uses().size();
      }
    }
  }

  std::map<const void*, size_t> readings_;  // by memory
};

}  // namespace lmfusion
