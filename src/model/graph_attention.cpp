#include <optional>

#include "model/graph_nodes.h"
#include "model/graph_passes.h"

// What a layer does between its products: parts of one product or three become heads, heads are
// normalised and rotated, attend, and become rows again. As exported that is some twenty operators,
// most of which only look at the same numbers in another order.

namespace lmfusion {
namespace {

using torch::jit::Node;
using torch::jit::Value;

bool HasNumbers(const Node* node, double first, double second) {
  return node && IsNumber(node->input(1), first) && IsNumber(node->input(2), second);
}

// The x of transpose(x, first, second).
Value* Untransposed(Value* value, double first, double second) {
  Node* const node = NodeOf(value, "aten::transpose");
  return HasNumbers(node, first, second) ? node->input(0) : nullptr;
}

// Where heads [1, T, heads, width] come from.
struct Rows {
  Value* rows = nullptr;  // [1, T, heads * width]
  double width = 0;
};
std::optional<Rows> RowsOf(Value* heads) {
  Node* const view = NodeOf(heads, "aten::view");
  if (!view) return std::nullopt;
  const Node* list = NodeOf(view->input(1), "prim::ListConstruct");
  if (!list || list->inputs().size() != 4) return std::nullopt;
  const std::optional<double> width = NumberOf(list->input(3));
  if (!width || *width <= 0) return std::nullopt;
  return Rows{view->input(0), *width};
}

// What became queries or keys [T, heads, width] by a norm and a rotation, either of which may be
// missing.
struct Heads {
  Rows from;
  Node* norm = nullptr;
  Node* rotation = nullptr;
};
std::optional<Heads> HeadsOf(Value* value) {
  Heads heads;
  value = Untransposed(value, 0, 1);
  Node* const squeeze = value ? NodeOf(value, "aten::squeeze") : nullptr;
  if (!squeeze || !IsNumber(squeeze->input(1), 0)) return std::nullopt;
  value = squeeze->input(0);  // [1, heads, T, width]
  if ((heads.rotation = NodeOf(value, "lmfusion::rotate_half"))) value = heads.rotation->input(0);
  const auto take_norm = [&] {  // over the last dimension, before or after the transposition
    Node* const norm = NodeOf(value, "lmfusion::rms_normalize");
    if (!norm || heads.norm || IsNone(norm->input(1))) return;
    heads.norm = norm;
    value = norm->input(0);
  };
  take_norm();
  value = Untransposed(value, 1, 2);
  if (!value) return std::nullopt;
  take_norm();
  const std::optional<Rows> rows = RowsOf(value);
  if (!rows) return std::nullopt;
  heads.from = *rows;
  return heads;
}

// [1, T, heads * width] as the next product takes it; null where it is something else.
Value* JoinedHeads(Node* attention) {
  const auto only_user = [](Value* value, const char* kind) -> Node* {
    if (!IsUsedOnce(value)) return nullptr;
    Node* const user = value->uses()[0].user;
    return user->kind() == c10::Symbol::fromQualString(kind) ? user : nullptr;
  };
  Node* const unsqueeze = only_user(attention->output(), "aten::unsqueeze");
  if (!unsqueeze || !IsNumber(unsqueeze->input(1), 0)) return nullptr;
  Node* const reshape = only_user(unsqueeze->output(), "aten::reshape");
  if (!reshape) return nullptr;
  const Node* list = NodeOf(reshape->input(1), "prim::ListConstruct");
  if (!list || list->inputs().size() != 3 || !IsNumber(list->input(2), -1)) return nullptr;
  Node* const contiguous = only_user(reshape->output(), "aten::contiguous");
  return contiguous ? contiguous->output() : reshape->output();
}

}  // namespace

bool FuseAttention(Node* node) {
  if (node->kind() != c10::Symbol::fromQualString("lmfusion::tree_attention")) return false;
  const std::optional<Heads> queries = HeadsOf(node->input(0));
  const std::optional<Heads> keys = HeadsOf(node->input(1));
  const std::optional<Heads> values = HeadsOf(node->input(2));
  Value* const joined = JoinedHeads(node);
  if (!queries || !keys || !values || !joined || values->norm || values->rotation) return false;
  if (queries->from.width != keys->from.width || keys->from.width != values->from.width) {
    return false;
  }
  if (!queries->rotation != !keys->rotation) return false;
  std::vector<torch::jit::NamedValue> inputs = {queries->from.rows, keys->from.rows,
                                                values->from.rows};
  for (const std::optional<Heads>& heads : {queries, keys}) {
    inputs.emplace_back(heads->norm ? torch::jit::NamedValue(heads->norm->input(1))
                                    : torch::jit::NamedValue(c10::IValue()));
    inputs.emplace_back(heads->norm ? torch::jit::NamedValue(heads->norm->input(2))
                                    : torch::jit::NamedValue(0.0));
  }
  for (const int angle : {1, 2}) {
    if (!queries->rotation) {
      inputs.emplace_back(c10::IValue());
      continue;
    }
    Value* value = queries->rotation->input(angle);  // unsqueeze(x, 1): a head for all
    if (value != keys->rotation->input(angle)) return false;
    inputs.emplace_back(value->node()->input(0));
  }
  for (size_t i = 3; i < node->inputs().size(); ++i) inputs.emplace_back(node->input(i));
  Value* const result = Insert(node, "lmfusion::rotary_attention", inputs);
  joined->replaceAllUsesWith(result);
  node->output()->replaceAllUsesWith(result);  // what lies between is dead
  node->destroy();  // it writes keys and values, so it would never be
  return true;
}

}  // namespace lmfusion
