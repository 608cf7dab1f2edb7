#include <string_view>
#include <unordered_set>

#include "engine/graph_nodes.h"
#include "engine/graph_passes.h"

// Models convert activations to float32 and back, for the sake of narrower types, and have dropout,
// for training. Here each of these is a call of an operator that gives its input back.

namespace lmfusion {
namespace {

using torch::jit::Node;
using torch::jit::Value;

// What they give is float32 where their first tensor is.
bool KeepsType(std::string_view kind) {
  static const std::unordered_set<std::string_view> kinds = {
      "aten::slice",   "aten::view",    "aten::transpose",  "aten::unsqueeze",
      "aten::squeeze", "aten::reshape", "aten::contiguous", "aten::select",
      "aten::expand",  "aten::cos",     "aten::sin",        "aten::silu",
      "aten::gelu",    "aten::neg",     "aten::rsqrt",      "aten::tanh",
      "aten::pow",     "aten::flatten", "aten::layer_norm", "aten::repeat_interleave"};
  return kinds.count(kind) > 0;
}

bool MixesTypes(std::string_view kind) {
  return kind == "aten::add" || kind == "aten::mul" || kind == "aten::sub";
}

class Casts {
 public:
  explicit Casts(torch::jit::Module& module) : module_(module) {}

  void Run() {
    ForEachNode(module_, [this](Node* node) {
      if (node->outputs().size() != 1) return;
      if (IsNoDropout(node) || (IsCastToFloat(node) && IsFloat(node->input(0)))) {
        node->output()->replaceAllUsesWith(node->input(0));
      } else if (IsCastToFloat(node) || GivesFloat(node)) {
        floats_.insert(node->output());
      }
    });
  }

 private:
  bool IsFloat(const Value* value) const { return floats_.count(value) > 0; }

  // aten::to(x, float32, non_blocking, copy=False, memory format None); aten::type_as(x, floats)
  bool IsCastToFloat(const Node* node) const {
    if (node->kind() == c10::aten::type_as) return IsFloat(node->input(1));
    if (node->kind() != c10::aten::to || node->inputs().size() != 5) return false;
    return IsNumber(node->input(1), static_cast<double>(at::kFloat)) &&
           IsBool(node->input(3), false) && IsNone(node->input(4));
  }

  static bool IsNoDropout(const Node* node) {
    return node->kind() == c10::aten::dropout && IsBool(node->input(2), false);
  }

  bool GivesFloat(const Node* node) const {
    const std::string_view kind = node->kind().toQualString();
    if (kind.rfind("lmfusion::", 0) == 0) return true;  // all of them work in float32
    if (node->kind() == c10::prim::GetAttr) {
      const std::optional<Attribute> attribute = AttributeOf(module_, node->output());
      if (!attribute) return false;
      const c10::IValue value = attribute->value();
      return value.isTensor() && value.toTensor().scalar_type() == at::kFloat;
    }
    if (node->kind() == c10::aten::embedding || KeepsType(kind)) return IsFloat(node->input(0));
    if (node->kind() == c10::aten::mean) {
      return node->inputs().size() == 4 && IsNone(node->input(3)) && IsFloat(node->input(0));
    }
    if (node->kind() == c10::aten::matmul) {
      return IsFloat(node->input(0)) && IsFloat(node->input(1));
    }
    if (node->kind() == c10::aten::cat || node->kind() == c10::aten::stack) {
      const Node* list = NodeOf(node->input(0), "prim::ListConstruct");
      if (!list) return false;
      for (const Value* part : list->inputs()) {
        if (!IsFloat(part)) return false;
      }
      return true;
    }
    if (!MixesTypes(kind)) return false;
    // A number beside a tensor of floats does not change its type; a number in a tensor of
    // no dimension (as tracers write them) does not either.
    const bool first = IsFloat(node->input(0)), second = IsFloat(node->input(1));
    return (first && second) || (first && NumberOf(node->input(1))) ||
           (second && NumberOf(node->input(0)));
  }

  torch::jit::Module& module_;
  std::unordered_set<const Value*> floats_;
};

}  // namespace

void DropCasts(torch::jit::Module& module) { Casts(module).Run(); }

}  // namespace lmfusion
