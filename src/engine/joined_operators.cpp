#include "engine/joined_operators.h"

#include <torch/csrc/jit/passes/dead_code_elimination.h>

#include <optional>
#include <vector>

#include "engine/graph_nodes.h"
#include "kernels/linear/feed_forward.h"
#include "ops/gate.h"
#include "ops/packed_linear.h"

namespace lmfusion {
namespace {

using torch::jit::NamedValue;
using torch::jit::Node;
using torch::jit::Value;

bool Is(const Node* node, const char* name) {
  return node->kind() == c10::Symbol::fromQualString(name);
}

// The node that makes a value which `user` alone reads, however often.
Node* MadeFor(const Node* user, const Value* value) {
  for (const torch::jit::Use& use : value->uses()) {
    if (use.user != user) return nullptr;
  }
  return const_cast<Node*>(value->node());
}

// Whether a node is this product with packed weights, an attribute: (x, weights, ..).
bool IsPacked(const Node* node, const char* name) {
  return Is(node, name) && node->input(1)->type()->cast<c10::ClassType>() != nullptr &&
         node->input(1)->node()->kind() == c10::prim::GetAttr;
}

class Joiner {
 public:
  explicit Joiner(torch::jit::Module& module) : module_(module), graph_(*ForwardGraph(module)) {}

  void Run() {
    for (Node* node : Nodes()) JoinFeedForward(node);
    torch::jit::EliminateDeadCode(graph_.block());
    for (Node* node : Nodes()) JoinNorm(node);
    torch::jit::EliminateDeadCode(graph_.block());
  }

 private:
  std::vector<Node*> Nodes() { return {graph_.nodes().begin(), graph_.nodes().end()}; }

  const PackedWeight& WeightOf(const Node* product) const {
    const Attribute attribute = AttributeOf(module_, product->input(1)).value();
    return attribute.value().toCustomClass<PackedMatrix>()->weight();
  }

  // normalize(x, weight, bias, residual, epsilon, centered), whose result goes to `product` alone.
  static Node* NormBefore(const Node* product) {
    Node* const norm = MadeFor(product, product->input(0));
    return norm && Is(norm, "lmfusion::normalize") && IsNone(norm->input(3)) ? norm : nullptr;
  }

  // linear[_add](gate(linear(x, first), ..), last, ..)
  void JoinFeedForward(Node* last) {
    const bool adds = IsPacked(last, "lmfusion::linear_add");
    if (!adds && !IsPacked(last, "lmfusion::linear")) return;
    Node* const gate = MadeFor(last, last->input(0));
    if (gate == nullptr || !Is(gate, "lmfusion::gate")) return;
    Node* const first = MadeFor(gate, gate->input(0));
    if (first == nullptr || !IsPacked(first, "lmfusion::linear")) return;
    const bool gated = !IsNone(gate->input(1));
    if (gated && gate->input(1) != gate->input(0)) return;
    if (!CoversColumns(gate, WeightOf(last).in, gated)) return;
    if (!FitFeedForward(WeightOf(first), WeightOf(last), gated)) return;
    const c10::IValue none;
    std::vector<NamedValue> inputs = {first->input(0), none, none, none, false};
    if (Node* const norm = NormBefore(first)) {
      inputs = {norm->input(0), norm->input(1), norm->input(2), norm->input(4), norm->input(5)};
    }
    inputs.insert(inputs.end(), {first->input(1), gate->input(2), gated, last->input(1)});
    if (adds) {
      inputs.insert(inputs.end(), {last->input(2), last->input(3)});
    } else {
      inputs.insert(inputs.end(), {none, 1.0});
    }
    ReplaceBy(last, "lmfusion::feed_forward", inputs);
  }

  // gate(x, up, activation, begin, up_begin, width): all columns of x, gates before ups.
  static bool CoversColumns(const Node* gate, int64_t inner, bool gated) {
    const auto number = [gate](size_t i) -> int64_t {
      const std::optional<c10::IValue> value = torch::jit::toIValue(gate->input(i));
      return value && value->isInt() ? value->toInt() : -1;
    };
    const std::optional<c10::IValue> name = torch::jit::toIValue(gate->input(2));
    if (!name || !name->isString()) return false;
    const std::optional<Activation> activation = ActivationNamed(name->toStringRef());
    return activation && (gated || *activation != Activation::kClampedSilu) && number(3) == 0 &&
           (!gated || number(4) == inner) && number(5) == inner;
  }

  void JoinNorm(Node* product) {
    if (!IsPacked(product, "lmfusion::linear")) return;
    Node* const norm = NormBefore(product);
    if (norm == nullptr) return;
    ReplaceBy(product, "lmfusion::normalized_linear",
              {norm->input(0), norm->input(1), norm->input(2), norm->input(4), norm->input(5),
               product->input(1)});
  }

  torch::jit::Module& module_;
  torch::jit::Graph& graph_;
};

}  // namespace

void JoinOperators(torch::jit::Module& module) { Joiner(module).Run(); }

}  // namespace lmfusion
