#pragma once

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>

#include <cstdint>
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

// Whether a value is always this truth value.
inline bool IsBool(const torch::jit::Value* value, bool truth) {
  const std::optional<c10::IValue> constant = torch::jit::toIValue(value);
  return constant && constant->isBool() && constant->toBool() == truth;
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

inline bool IsListOf(const torch::jit::Value* value, const std::vector<double>& numbers) {
  return NumbersOf(value) == std::optional<std::vector<double>>(numbers);
}

inline bool IsTensor(const torch::jit::Value* value) {
  return value->type()->isSubtypeOf(*c10::TensorType::get());
}

// a + b, nothing multiplied
inline bool IsSum(const torch::jit::Node* node) {
  return node->kind() == c10::aten::add && node->inputs().size() == 3 &&
         IsNumber(node->input(2), 1);
}
inline torch::jit::Node* SumOf(const torch::jit::Value* value) {
  torch::jit::Node* const sum = NodeOf(value, "aten::add");
  return sum && IsSum(sum) ? sum : nullptr;
}

// What slice(x, dim, begin, end, 1) takes from its x, where all numbers are known.
struct Slice {
  torch::jit::Value* of = nullptr;
  double dim = 0, begin = 0, end = 0;
};
inline std::optional<Slice> SliceOf(const torch::jit::Value* value) {
  const torch::jit::Node* node = NodeOf(value, "aten::slice");
  if (!node || !IsNumber(node->input(4), 1)) return std::nullopt;
  const std::optional<double> dim = NumberOf(node->input(1));
  const std::optional<double> begin = NumberOf(node->input(2)), end = NumberOf(node->input(3));
  if (!dim || !begin || !end || *begin < 0 || *end <= *begin) return std::nullopt;
  return Slice{const_cast<torch::jit::Value*>(node->input(0)), *dim, *begin, *end};
}

// How many dimensions a tensor of a module's forward graph has; -1: not known.
int64_t RankOf(const torch::jit::Module& module, const torch::jit::Value* value);

// The numbers a double holds where they stand for "to the end".
inline bool IsToTheEnd(double end) { return end >= 9.2e18; }

// `rewrite` for every node that a graph has now, in order; then what has no user left goes.
template <class Rewrite>
void ForEachNode(torch::jit::Module& module, Rewrite rewrite) {
  const std::shared_ptr<torch::jit::Graph> graph = ForwardGraph(module);
  const std::vector<torch::jit::Node*> nodes(graph->nodes().begin(), graph->nodes().end());
  for (torch::jit::Node* node : nodes) rewrite(node);
  torch::jit::EliminateDeadCode(graph->block());
}

// A new operator in front of a node.
inline torch::jit::Value* Insert(torch::jit::Node* before, const char* name,
                                 const std::vector<torch::jit::NamedValue>& inputs) {
  const torch::jit::WithInsertPoint here(before);
  return before->owningGraph()->insert(c10::Symbol::fromQualString(name), inputs);
}

}  // namespace lmfusion
