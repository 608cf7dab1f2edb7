#include <ATen/ATen.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "model/graph_nodes.h"
#include "model/graph_passes.h"

// Each pattern is looked for from its last node back to its inputs, and every constant in it is
// checked. What is left without a user by a replacement goes with dead code elimination.

namespace lmfusion {
namespace {

using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;

bool IsListOf(const Value* value, const std::vector<double>& numbers) {
  return NumbersOf(value) == std::optional<std::vector<double>>(numbers);
}

// x * rsqrt(mean(x^2, -1) + epsilon)
bool FuseNorm(Node* product) {
  if (product->kind() != c10::aten::mul) return false;
  for (const int side : {0, 1}) {
    Value* const x = product->input(side);
    Value* const root = product->input(1 - side);
    if (!Is(root, "aten::rsqrt")) continue;
    Value* const sum = root->node()->input(0);
    if (!Is(sum, "aten::add") || !IsNumber(sum->node()->input(2), 1)) continue;
    const std::optional<double> epsilon = NumberOf(sum->node()->input(1));
    Value* const mean = sum->node()->input(0);
    if (!epsilon || !Is(mean, "aten::mean") || mean->node()->inputs().size() != 4) continue;
    const auto keeps = torch::jit::toIValue(mean->node()->input(2));
    const auto dtype = torch::jit::toIValue(mean->node()->input(3));
    if (!IsListOf(mean->node()->input(1), {-1}) || !keeps || !keeps->isBool() ||
        !keeps->toBool() || !dtype || !dtype->isNone()) {
      continue;
    }
    Value* const square = mean->node()->input(0);
    if (!Is(square, "aten::pow") || square->node()->input(0) != x ||
        !IsNumber(square->node()->input(1), 2)) {
      continue;
    }
    product->output()->replaceAllUsesWith(
        Insert(product, "lmfusion::rms_normalize", {x, c10::IValue(), *epsilon}));
    return true;
  }
  return false;
}

// A weight of one dimension, or one more than it, as Gemma's norms have: then as a new weight.
class NormWeights {
 public:
  explicit NormWeights(torch::jit::Module& module) : module_(module) {}

  Value* At(Node* user, Value* value) {
    Node* const sum = NodeOf(value, "aten::add");
    const bool one_more = sum && IsNumber(sum->input(1), 1) && IsNumber(sum->input(2), 1);
    const std::optional<Attribute> attribute =
        AttributeOf(module_, one_more ? sum->input(0) : value);
    if (!attribute || !attribute->value().isTensor()) return nullptr;
    const at::Tensor weight = attribute->value().toTensor();
    if (weight.dim() != 1 || weight.scalar_type() != at::kFloat || !weight.device().is_cpu()) {
      return nullptr;
    }
    if (!one_more) return value;
    const std::string name = "lmfusion_norm_" + std::to_string(++count_);
    module_.register_attribute(name, c10::TensorType::get(), at::add(weight, 1).detach());
    const torch::jit::WithInsertPoint here(user);
    return user->owningGraph()->insertGetAttr(user->owningGraph()->inputs().at(0), name);
  }

 private:
  torch::jit::Module& module_;
  int count_ = 0;
};

// weight * norm
bool FuseNormWeight(Node* product, NormWeights* weights) {
  if (product->kind() != c10::aten::mul) return false;
  for (const int side : {0, 1}) {
    Node* const norm = NodeOf(product->input(side), "lmfusion::rms_normalize");
    if (!norm || !IsUsedOnce(norm->output()) || !IsNone(norm->input(1))) continue;
    Value* const weight = weights->At(product, product->input(1 - side));
    if (!weight) continue;
    product->output()->replaceAllUsesWith(
        Insert(product, "lmfusion::rms_normalize", {norm->input(0), weight, norm->input(2)}));
    return true;
  }
  return false;
}

// residual + linear(x) or residual + linear(x) * number, either way round
bool FuseResidual(Node* sum) {
  if (sum->kind() != c10::aten::add || sum->inputs().size() != 3 || !IsNumber(sum->input(2), 1)) {
    return false;
  }
  for (const int side : {1, 0}) {
    Value* product = sum->input(side);
    Value* const residual = sum->input(1 - side);
    double scale = 1;
    if (Node* const scaled = NodeOf(product, "aten::mul")) {  // as Granite's
      const std::optional<double> number = NumberOf(scaled->input(1));
      if (!number || !IsUsedOnce(product)) continue;
      scale = *number;
      product = scaled->input(0);
    }
    Node* const linear = NodeOf(product, "lmfusion::linear");
    if (!linear || !IsUsedOnce(linear->output()) || NumberOf(residual)) continue;
    if (!residual->type()->isSubtypeOf(*c10::TensorType::get())) continue;
    sum->output()->replaceAllUsesWith(
        Insert(sum, "lmfusion::linear_add",
               {linear->input(0), linear->input(1), residual, scale}));
    return true;
  }
  return false;
}

// size(x, 3) / 2 as a tracer writes it.
bool IsHalfWidth(const Value* value, const Value* x) {
  if (!Is(value, "aten::Int")) return false;
  const Value* quotient = value->node()->input(0);
  if (!Is(quotient, "aten::floor_divide") || !IsNumber(quotient->node()->input(1), 2)) return false;
  const Value* number = quotient->node()->input(0);
  if (!Is(number, "prim::NumToTensor")) return false;
  const Value* size = number->node()->input(0);
  return Is(size, "aten::size") && size->node()->input(0) == x &&
         IsNumber(size->node()->input(1), 3);
}

bool IsHalf(const Value* value, const Value* x, bool second) {
  if (!Is(value, "aten::slice")) return false;
  const Node* slice = value->node();
  if (slice->input(0) != x || !IsNumber(slice->input(1), 3) || !IsNumber(slice->input(4), 1)) {
    return false;
  }
  return second ? IsHalfWidth(slice->input(2), x) &&
                      IsNumber(slice->input(3),
                               static_cast<double>(std::numeric_limits<int64_t>::max()))
                : IsNumber(slice->input(2), 0) && IsHalfWidth(slice->input(3), x);
}

// x * cos + cat(-x2, x1) * sin
bool FuseRotation(Node* sum) {
  if (sum->kind() != c10::aten::add || sum->inputs().size() != 3 || !IsNumber(sum->input(2), 1)) {
    return false;
  }
  Value* const straight = sum->input(0);
  Value* const turned = sum->input(1);
  if (!Is(straight, "aten::mul") || !Is(turned, "aten::mul")) return false;
  Value* const x = straight->node()->input(0);
  Value* const both = turned->node()->input(0);
  if (!Is(both, "aten::cat") || !IsNumber(both->node()->input(1), -1)) return false;
  const Node* list = both->node()->input(0)->node();
  if (list->kind() != c10::prim::ListConstruct || list->inputs().size() != 2) return false;
  if (!Is(list->input(0), "aten::neg") || !IsHalf(list->input(0)->node()->input(0), x, true) ||
      !IsHalf(list->input(1), x, false)) {
    return false;
  }
  Value* const cos = straight->node()->input(1);
  Value* const sin = turned->node()->input(1);
  // [1, 1, tokens, width]: heads before tokens, as the operator takes them.
  for (const Value* angle : {cos, sin}) {
    if (!Is(angle, "aten::unsqueeze") || !IsNumber(angle->node()->input(1), 1)) return false;
  }
  sum->output()->replaceAllUsesWith(Insert(sum, "lmfusion::rotate_half", {x, cos, sin}));
  return true;
}

// silu(gate) * up, gelu(gate, "tanh") * up
bool FuseGate(Node* product) {
  if (product->kind() != c10::aten::mul) return false;
  for (const int side : {0, 1}) {
    Value* const gate = product->input(side);
    const bool gelu = Is(gate, "aten::gelu");
    if (!(gelu || Is(gate, "aten::silu")) || !IsUsedOnce(gate)) continue;
    if (gelu) {
      const auto form = torch::jit::toIValue(gate->node()->input(1));
      if (!form || !form->isString() || form->toStringRef() != "tanh") continue;
    }
    product->output()->replaceAllUsesWith(
        Insert(product, gelu ? "lmfusion::gelu_tanh_mul" : "lmfusion::silu_mul",
               {gate->node()->input(0), product->input(1 - side)}));
    return true;
  }
  return false;
}

}  // namespace

FusedGraph FuseOperators(torch::jit::Module& module) {
  const std::shared_ptr<Graph> graph = ForwardGraph(module);
  FusedGraph fused;
  NormWeights weights(module);
  const auto for_each_node = [&graph](auto fuse) {
    const std::vector<Node*> nodes(graph->nodes().begin(), graph->nodes().end());
    for (Node* node : nodes) fuse(node);
    torch::jit::EliminateDeadCode(graph->block());
  };
  for_each_node([&](Node* node) {
    fused.norms += FuseNorm(node);
    fused.rotations += FuseRotation(node);
    fused.gates += FuseGate(node);
  });
  DropCasts(module);  // they stand between the parts of what follows
  for_each_node([&](Node* node) {
    fused.norm_weights += FuseNormWeight(node, &weights);
    fused.residuals += FuseResidual(node);
  });
  for_each_node([&](Node* node) { fused.attentions += FuseAttention(node); });
  return fused;
}

}  // namespace lmfusion
