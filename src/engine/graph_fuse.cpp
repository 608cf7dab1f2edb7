#include <torch/csrc/jit/passes/common_subexpression_elimination.h>

#include <optional>
#include <string_view>
#include <unordered_set>

#include "engine/graph_nodes.h"
#include "engine/graph_passes.h"

// Each pattern is looked for from its last node back to its inputs, and every constant in it is
// checked. What is left without a user by a replacement goes with dead code elimination.

namespace lmfusion {
namespace {

using torch::jit::Node;
using torch::jit::Value;

Value* InsertLinearAdd(Node* sum, const Node* linear, const torch::jit::NamedValue& residual,
                       const torch::jit::NamedValue& scale) {
  Node* const made = const_cast<Node*>(linear);
  return Insert(sum, "lmfusion::linear_add", {made->input(0), made->input(1), residual, scale});
}

// The sum of a residual and `part`, as one operator; null where there is none.
Value* Added(Node* sum, Value* part, Value* residual) {
  if (!IsUsedOnce(part)) return nullptr;
  if (const Node* linear = NodeOf(part, "lmfusion::linear")) {
    return InsertLinearAdd(sum, linear, residual, 1.0);
  }
  if (Node* const scaled = NodeOf(part, "aten::mul")) {  // as Granite's
    const std::optional<double> number = NumberOf(scaled->input(1));
    const Node* linear = NodeOf(scaled->input(0), "lmfusion::linear");
    if (!number || !linear || !IsUsedOnce(scaled->input(0))) return nullptr;
    return InsertLinearAdd(sum, linear, residual, *number);
  }
  if (Node* const both = NodeOf(part, "lmfusion::linear_add")) {  // of attention and MLP, as Phi's
    const Node* linear = NodeOf(both->input(2), "lmfusion::linear");
    if (!linear || !IsUsedOnce(both->input(2))) return nullptr;
    return InsertLinearAdd(sum, both, InsertLinearAdd(sum, linear, residual, 1.0), both->input(3));
  }
  Node* const norm = NodeOf(part, "lmfusion::normalize");  // as Gemma 2's and OLMo 2's
  if (!norm || !IsNone(norm->input(3))) return nullptr;
  return Insert(
      sum, "lmfusion::normalize",
      {norm->input(0), norm->input(1), norm->input(2), residual, norm->input(4), norm->input(5)});
}

// A residual and a product, or a norm, either way round
void FuseResidual(Node* sum) {
  if (!IsSum(sum)) return;
  for (const int side : {1, 0}) {
    Value* const residual = sum->input(1 - side);
    if (NumberOf(residual) || !IsTensor(residual)) continue;
    Value* const added = Added(sum, sum->input(side), residual);
    if (!added) continue;
    sum->output()->replaceAllUsesWith(added);
    sum->destroy();  // it would count as a user of its parts
    return;
  }
}

bool IsFused(const Node* node) {
  static const std::unordered_set<std::string_view> kinds = {
      "lmfusion::normalize",       "lmfusion::rotate",     "lmfusion::gelu_tanh",
      "lmfusion::silu_mul",        "lmfusion::linear_add", "lmfusion::gelu_tanh_mul",
      "lmfusion::rotary_attention"};
  return kinds.count(node->kind().toQualString()) > 0;
}

}  // namespace

int64_t FuseOperators(torch::jit::Module& module) {
  SliceProducts(module);
  DropCasts(module);  // they stand between the parts of what follows
  torch::jit::EliminateCommonSubexpression(ForwardGraph(module));
  FuseNorms(module);
  FuseRotations(module);
  FuseActivations(module);
  ForEachNode(module, FuseResidual);
  FuseAttentions(module);
  int64_t fused = 0;
  for (const Node* node : ForwardGraph(module)->nodes()) fused += IsFused(node);
  return fused;
}

}  // namespace lmfusion
