#include <cmath>
#include <optional>

#include "engine/graph_nodes.h"
#include "engine/graph_passes.h"

// GELU by tanh, written out or not, becomes lmfusion::gelu_tanh; where an activation is a gate, the
// product goes with it (lmfusion::silu_mul, gelu_tanh_mul).

namespace lmfusion {
namespace {

using torch::jit::Module;
using torch::jit::Node;
using torch::jit::Value;

// The x of x * number, either way round.
Value* FactorOf(const Value* value, double number) {
  Node* const product = NodeOf(value, "aten::mul");
  if (!product) return nullptr;
  for (const int side : {0, 1}) {
    const std::optional<double> found = NumberOf(product->input(1 - side));
    if (found && std::abs(*found - number) <= 1e-6) return product->input(side);
  }
  return nullptr;
}

// Whether a value is x + 0.044715 * x^3.
bool IsCubic(const Value* value, const Value* x) {
  const Node* sum = SumOf(value);
  if (!sum || sum->input(0) != x) return false;
  const Value* power = FactorOf(sum->input(1), 0.044715);
  const Node* cube = power ? NodeOf(power, "aten::pow") : nullptr;
  return cube && cube->input(0) == x && IsNumber(cube->input(1), 3);
}

// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))), or gelu(x, "tanh")
void FuseGelu(Node* node) {
  Value* x = nullptr;
  if (node->kind() == c10::aten::gelu) {
    const auto form = torch::jit::toIValue(node->input(1));
    if (form && form->isString() && form->toStringRef() == "tanh") x = node->input(0);
  } else if (node->kind() == c10::aten::mul) {
    x = FactorOf(node->input(0), 0.5);
    const Node* one_more = SumOf(node->input(1));
    const bool adds_one = x && one_more && IsNumber(one_more->input(1), 1);
    const Node* tanh = adds_one ? NodeOf(one_more->input(0), "aten::tanh") : nullptr;
    const Value* cubic = tanh ? FactorOf(tanh->input(0), 0.7978845608028654) : nullptr;
    if (!cubic || !IsCubic(cubic, x)) return;
  }
  if (x) node->output()->replaceAllUsesWith(Insert(node, "lmfusion::gelu_tanh", {x}));
}

// silu(gate) * up, gelu_tanh(gate) * up; gate and up may be columns of a product.
void FuseGate(Node* product) {
  if (product->kind() != c10::aten::mul) return;
  for (const int side : {0, 1}) {
    Node* const gate = product->input(side)->node();
    const bool gelu = Is(product->input(side), "lmfusion::gelu_tanh");
    if (!(gelu || gate->kind() == c10::aten::silu) || !IsUsedOnce(product->input(side))) continue;
    Value* const up = product->input(1 - side);
    std::vector<torch::jit::NamedValue> inputs = {gate->input(0), up};
    const std::optional<Slice> first = SliceOf(gate->input(0)), second = SliceOf(up);
    if (first && second && first->dim == -1 && second->dim == -1 && !IsToTheEnd(first->end) &&
        first->end - first->begin == second->end - second->begin) {
      inputs = {first->of, second->of};
      for (const double number : {first->begin, second->begin, first->end - first->begin}) {
        inputs.emplace_back(static_cast<int64_t>(number));
      }
    }
    product->output()->replaceAllUsesWith(
        Insert(product, gelu ? "lmfusion::gelu_tanh_mul" : "lmfusion::silu_mul", inputs));
    return;
  }
}

}  // namespace

void FuseActivations(Module& module) {
  ForEachNode(module, FuseGelu);
  ForEachNode(module, FuseGate);
}

}  // namespace lmfusion
