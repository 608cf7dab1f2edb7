#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "model/graph_nodes.h"

namespace lmfusion {
namespace {

using torch::jit::Node;
using torch::jit::Value;

using Known = std::unordered_map<const Value*, size_t>;

size_t Rank(const Value* value, Known* known);

size_t RankOfResult(const Node* node, Known* known) {
  const std::string_view kind = node->kind().toQualString();
  if (kind == "lmfusion::rotary_attention") return 3;
  if (kind == "aten::view" || kind == "aten::reshape") {
    const Node* list = NodeOf(node->input(1), "prim::ListConstruct");
    return list ? list->inputs().size() : 0;
  }
  if (kind == "lmfusion::rows" || kind == "aten::unsqueeze") {
    const size_t rank = Rank(node->input(kind == "lmfusion::rows" ? 1 : 0), known);
    return rank > 0 ? rank + 1 : 0;
  }
  if (kind == "aten::add" || kind == "aten::mul") {
    const size_t rank = Rank(node->input(0), known);
    return NumberOf(node->input(1)) || Rank(node->input(1), known) == rank ? rank : 0;
  }
  static const std::unordered_set<std::string_view> same = {
      "lmfusion::linear",    "lmfusion::linear_add",    "lmfusion::normalize",
      "lmfusion::silu_mul",  "lmfusion::gelu_tanh_mul", "lmfusion::gelu_tanh",
      "aten::to",            "aten::slice",             "aten::contiguous"};
  return same.count(kind) > 0 ? Rank(node->input(0), known) : 0;
}

size_t Rank(const Value* value, Known* known) {
  const auto found = known->find(value);
  if (found != known->end()) return found->second;
  size_t rank = 0;
  if (value->node()->kind() == c10::prim::Param) {
    rank = value->offset() == 1 || value->offset() == 2;  // tokens, positions: [T]
  } else if (value->node()->inputs().size() > 0) {
    rank = RankOfResult(value->node(), known);
  }
  (*known)[value] = rank;
  return rank;
}

}  // namespace

size_t RankOf(const Value* value) {
  Known known;
  return Rank(value, &known);
}

}  // namespace lmfusion
