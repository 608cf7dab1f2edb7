#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace lmfusion {

// Reading the graph of a traced module.

inline std::shared_ptr<torch::jit::Graph> ForwardGraph(torch::jit::Module& module) {
  return module.get_method("forward").graph();
}

// The module's attribute that a value reads, through any number of submodules.
struct Attribute {
  c10::intrusive_ptr<c10::ivalue::Object> owner;
  std::string name;
  c10::IValue value() const { return owner->getAttr(name); }
};

inline std::optional<Attribute> AttributeOf(const torch::jit::Module& module,
                                            const torch::jit::Value* value) {
  const torch::jit::Node* node = value->node();
  if (node->kind() != c10::prim::GetAttr) return std::nullopt;
  const std::string& name = node->s(c10::attr::name);
  const torch::jit::Value* from = node->input();
  if (from == node->owningGraph()->inputs().at(0)) return Attribute{module._ivalue(), name};
  const std::optional<Attribute> owner = AttributeOf(module, from);
  if (!owner || !owner->value().isObject()) return std::nullopt;
  return Attribute{owner->value().toObject(), name};
}

inline bool IsNone(const torch::jit::Value* value) {
  const std::optional<c10::IValue> constant = torch::jit::toIValue(value);
  return constant && constant->isNone();
}

// A product with a weight: linear(x, weight, bias).
inline bool IsLinear(const torch::jit::Node* node) {
  return node->kind() == c10::aten::linear ||
         node->kind() == c10::Symbol::fromQualString("lmfusion::linear");
}

// Puts an operator in the place of a node, whose results they both are.
inline void ReplaceBy(torch::jit::Node* node, const char* name,
                      const std::vector<torch::jit::NamedValue>& inputs) {
  {  // the guard may restore this node as the point, so it must be gone before the node is
    const torch::jit::WithInsertPoint here(node);
    node->output()->replaceAllUsesWith(
        node->owningGraph()->insert(c10::Symbol::fromQualString(name), inputs));
  }
  node->destroy();
}

// A bias that is an attribute of the module, as float32; none where it is anything else.
inline std::optional<at::Tensor> BiasIn(const std::optional<Attribute>& attribute) {
  if (!attribute || !attribute->value().isTensor()) return std::nullopt;
  const at::Tensor bias = attribute->value().toTensor();
  const bool usable = bias.dim() == 1 && bias.device().is_cpu() && bias.is_floating_point();
  return usable ? std::optional<at::Tensor>(bias.to(at::kFloat)) : std::nullopt;
}

}  // namespace lmfusion
