#include <optional>

#include "engine/graph_nodes.h"
#include "engine/graph_passes.h"

// Rotary embeddings of heads [1, heads, T, width] become lmfusion::rotate.

namespace lmfusion {
namespace {

using torch::jit::Module;
using torch::jit::Node;
using torch::jit::Value;

// size(x, 3) / 2 as a tracer writes it.
bool IsHalfWidth(const Value* value, const Value* x) {
  const Node* number = NodeOf(value, "aten::Int");
  const Node* quotient = number ? NodeOf(number->input(0), "aten::floor_divide") : nullptr;
  if (!quotient || !IsNumber(quotient->input(1), 2)) return false;
  const Node* width = NodeOf(quotient->input(0), "prim::NumToTensor");
  const Node* size = width ? NodeOf(width->input(0), "aten::size") : nullptr;
  return size && size->input(0) == x && IsNumber(size->input(1), 3);
}

// A part of the heads x: slice(x, 3, begin, end, step).
Node* PartOf(const Value* value, const Value* x, double step) {
  Node* const slice = NodeOf(value, "aten::slice");
  const bool is_part = slice && slice->input(0) == x && IsNumber(slice->input(1), 3) &&
                       IsNumber(slice->input(4), step);
  return is_part ? slice : nullptr;
}

bool EndsAtTheEnd(const Node* slice) {
  const std::optional<double> end = NumberOf(slice->input(3));
  return end && IsToTheEnd(*end);
}

// The two values of cat or stack along a dimension; null for any other.
const Node* PairIn(const Node* node, double dim) {
  if (!IsNumber(node->input(1), dim)) return nullptr;
  const Node* list = NodeOf(node->input(0), "prim::ListConstruct");
  return list && list->inputs().size() == 2 ? list : nullptr;
}

// cat(-x2, x1) of the halves of x
bool IsTurnedHalves(const Value* value, const Value* x) {
  const Node* both = NodeOf(value, "aten::cat");
  const Node* list = both ? PairIn(both, -1) : nullptr;
  const Node* negative = list ? NodeOf(list->input(0), "aten::neg") : nullptr;
  if (!negative) return false;
  const Node* second = PartOf(negative->input(0), x, 1);
  const Node* first = PartOf(list->input(1), x, 1);
  return first && second && IsNumber(first->input(2), 0) && IsHalfWidth(first->input(3), x) &&
         IsHalfWidth(second->input(2), x) && EndsAtTheEnd(second);
}

// flatten(stack(-x2, x1)) of the odd and even elements of x
bool IsTurnedPairs(const Value* value, const Value* x) {
  const Node* flat = NodeOf(value, "aten::flatten");
  if (!flat || !IsNumber(flat->input(1), -2) || !IsNumber(flat->input(2), -1)) return false;
  const Node* both = NodeOf(flat->input(0), "aten::stack");
  const Node* list = both ? PairIn(both, -1) : nullptr;
  const Node* negative = list ? NodeOf(list->input(0), "aten::neg") : nullptr;
  if (!negative) return false;
  const Node* odd = PartOf(negative->input(0), x, 2);
  const Node* even = PartOf(list->input(1), x, 2);
  return odd && even && IsNumber(odd->input(2), 1) && EndsAtTheEnd(odd) &&
         IsNumber(even->input(2), 0) && EndsAtTheEnd(even);
}

// [1, 1, T, n]: one for all heads.
bool IsAngle(const Value* value) {
  while (!Is(value, "aten::unsqueeze")) {
    const Node* node = value->node();
    const bool is_part = node->kind() == c10::aten::slice && IsNumber(node->input(1), 3);
    const bool repeats = Is(value, "aten::repeat_interleave") && node->inputs().size() == 4 &&
                         IsNumber(node->input(2), -1);  // GLM's
    if (!is_part && !repeats) return false;
    value = node->input(0);
  }
  return IsNumber(value->node()->input(1), 1);
}

// x * cos + turned(x) * sin
void FuseRotation(Node* sum) {
  if (!IsSum(sum)) return;
  Node* const straight = NodeOf(sum->input(0), "aten::mul");
  Node* const turned = NodeOf(sum->input(1), "aten::mul");
  if (!straight || !turned) return;
  Value* const x = straight->input(0);
  Value* const cos = straight->input(1);
  Value* const sin = turned->input(1);
  const bool pairs = IsTurnedPairs(turned->input(0), x);
  if (!pairs && !IsTurnedHalves(turned->input(0), x)) return;
  if (!IsAngle(cos) || !IsAngle(sin)) return;
  sum->output()->replaceAllUsesWith(Insert(sum, "lmfusion::rotate", {x, cos, sin, pairs}));
}

bool AreEqual(const Value* a, const Value* b) {
  const std::optional<double> first = NumberOf(a);
  return a == b || (first && first == NumberOf(b));
}

// cat(rotate(the first n of x), the others of x)
void FusePartialRotation(Node* both) {
  if (both->kind() != c10::aten::cat) return;
  const Node* list = PairIn(both, -1);
  const Node* rotate = list ? NodeOf(list->input(0), "lmfusion::rotate") : nullptr;
  const Node* first = rotate ? NodeOf(rotate->input(0), "aten::slice") : nullptr;
  if (!first) return;
  Value* const x = rotate->input(0)->node()->input(0);
  const Node* others = PartOf(list->input(1), x, 1);
  if (!PartOf(rotate->input(0), x, 1) || !others || !IsNumber(first->input(2), 0) ||
      !AreEqual(first->input(3), others->input(2)) || !EndsAtTheEnd(others)) {
    return;
  }
  Node* const made = list->input(0)->node();
  both->output()->replaceAllUsesWith(
      Insert(both, "lmfusion::rotate", {x, made->input(1), made->input(2), made->input(3)}));
}

}  // namespace

void FuseRotations(Module& module) {
  ForEachNode(module, FuseRotation);
  ForEachNode(module, FusePartialRotation);
}

}  // namespace lmfusion
