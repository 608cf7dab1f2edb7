#pragma once

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

inline bool Is(const torch::jit::Value* value, const char* kind) {
  return value->node()->kind() == c10::Symbol::fromQualString(kind);
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

// The number that a value is always, if it is one.
inline std::optional<double> NumberOf(const torch::jit::Value* value) {
  const std::optional<c10::IValue> constant = torch::jit::toIValue(value);
  if (!constant) return std::nullopt;
  if (constant->isInt()) return static_cast<double>(constant->toInt());
  if (constant->isDouble()) return constant->toDouble();
  if (constant->isTensor() && constant->toTensor().numel() == 1) {
    return constant->toTensor().item<double>();
  }
  return std::nullopt;
}

inline bool IsNumber(const torch::jit::Value* value, double number) {
  const std::optional<double> found = NumberOf(value);
  return found && *found == number;
}

// The node of a value of one kind; null for any other.
inline torch::jit::Node* NodeOf(const torch::jit::Value* value, const char* kind) {
  return Is(value, kind) ? const_cast<torch::jit::Node*>(value->node()) : nullptr;
}

inline bool IsNone(const torch::jit::Value* value) {
  const std::optional<c10::IValue> constant = torch::jit::toIValue(value);
  return constant && constant->isNone();
}

inline bool IsUsedOnce(const torch::jit::Value* value) { return value->uses().size() == 1; }

// The numbers of a list, where all are known.
inline std::optional<std::vector<double>> NumbersOf(const torch::jit::Value* value) {
  std::vector<double> numbers;
  const std::optional<c10::IValue> constant = torch::jit::toIValue(value);
  if (constant && constant->isIntList()) {
    for (const int64_t number : constant->toIntVector()) numbers.push_back(number);
    return numbers;
  }
  if (value->node()->kind() != c10::prim::ListConstruct) return std::nullopt;
  for (const torch::jit::Value* input : value->node()->inputs()) {
    const std::optional<double> number = NumberOf(input);
    if (!number) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

// A new operator in front of a node.
inline torch::jit::Value* Insert(torch::jit::Node* before, const char* name,
                                 const std::vector<torch::jit::NamedValue>& inputs) {
  const torch::jit::WithInsertPoint here(before);
  return before->owningGraph()->insert(c10::Symbol::fromQualString(name), inputs);
}

}  // namespace lmfusion
