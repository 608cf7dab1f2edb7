#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "engine/graph_nodes.h"
#include "engine/graph_passes.h"

// What a layer does between its products: parts of one product or three become heads, heads are
// normalised and rotated, attend, and become rows again. As exported that is some twenty operators,
// most of which only look at the same numbers in another order.

namespace lmfusion {
namespace {

using torch::jit::Module;
using torch::jit::Node;
using torch::jit::Value;

constexpr int64_t kToTheEnd = std::numeric_limits<int64_t>::max();

// The x of transpose(x, first, second).
Value* Untransposed(Value* value, double first, double second) {
  Node* const node = NodeOf(value, "aten::transpose");
  const bool is_it = node && IsNumber(node->input(1), first) && IsNumber(node->input(2), second);
  return is_it ? node->input(0) : nullptr;
}

// What became queries or keys [T, heads, width] by a norm and a rotation, either of which may be
// missing.
struct Heads {
  Value* from = nullptr;  // [1, T, heads, width], or [1, heads, T, width]:
  bool heads_first = false;
  Node* norm = nullptr;
  Node* rotation = nullptr;
};
std::optional<Heads> HeadsOf(Value* value) {
  Heads heads;
  value = Untransposed(value, 0, 1);
  Node* const squeeze = value ? NodeOf(value, "aten::squeeze") : nullptr;
  if (!squeeze || !IsNumber(squeeze->input(1), 0)) return std::nullopt;
  value = squeeze->input(0);  // [1, heads, T, width]
  if ((heads.rotation = NodeOf(value, "lmfusion::rotate"))) value = heads.rotation->input(0);
  const auto take_norm = [&] {  // over the last dimension, before or after the transposition
    Node* const norm = NodeOf(value, "lmfusion::normalize");
    if (!norm || heads.norm || IsNone(norm->input(1)) || !IsNone(norm->input(2)) ||
        !IsNone(norm->input(3)) || !IsBool(norm->input(5), false)) {
      return;
    }
    heads.norm = norm;
    value = norm->input(0);
  };
  take_norm();
  Value* const untransposed = Untransposed(value, 1, 2);
  heads.heads_first = untransposed == nullptr;
  if (untransposed) value = untransposed;
  take_norm();
  heads.from = value;
  return heads;
}

// Heads as columns [begin, end) of rows [1, T, columns].
struct Columns {
  Value* rows;
  int64_t begin = 0, end = kToTheEnd;
};
Columns ColumnsOf(const Module& module, Node* attention, const Heads& heads) {
  Value* from = heads.from;
  if (heads.heads_first) from = Insert(attention, "aten::transpose", {from, 1, 2});
  const Node* view = NodeOf(from, "aten::view");
  const Node* list = view ? NodeOf(view->input(1), "prim::ListConstruct") : nullptr;
  if (!list || list->inputs().size() != 4 || RankOf(module, view->input(0)) != 3) {
    return {Insert(attention, "aten::flatten", {from, 2, 3})};
  }
  Value* const rows = from->node()->input(0);
  const std::optional<Slice> slice = SliceOf(rows);
  if (!slice || !(slice->dim == -1 || slice->dim == 2)) return {rows};
  return {slice->of, static_cast<int64_t>(slice->begin),
          IsToTheEnd(slice->end) ? kToTheEnd : static_cast<int64_t>(slice->end)};
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
  Node* reshape = nullptr;  // the only user but for the sizes that it takes
  std::vector<Node*> sizes;
  for (const torch::jit::Use& use : unsqueeze->output()->uses()) {
    if (use.user->kind() == c10::aten::size) {
      sizes.push_back(use.user);
    } else if (std::exchange(reshape, use.user)) {
      return nullptr;
    }
  }
  if (!reshape || reshape->kind() != c10::aten::reshape) return nullptr;
  const Node* list = NodeOf(reshape->input(1), "prim::ListConstruct");
  if (!list || list->inputs().size() != 3 || !IsNumber(list->input(2), -1)) return nullptr;
  for (Node* size : sizes) {
    if (!IsUsedOnce(size->output()) || size->output()->uses()[0].user != list) return nullptr;
  }
  Node* const contiguous = only_user(reshape->output(), "aten::contiguous");
  return contiguous ? contiguous->output() : reshape->output();
}

void FuseAttention(const Module& module, Node* node) {
  if (node->kind() != c10::Symbol::fromQualString("lmfusion::tree_attention")) return;
  const std::optional<Heads> queries = HeadsOf(node->input(0));
  const std::optional<Heads> keys = HeadsOf(node->input(1));
  const std::optional<Heads> values = HeadsOf(node->input(2));
  Value* const joined = JoinedHeads(node);
  if (!queries || !keys || !values || !joined || values->norm || values->rotation) return;
  if (!queries->rotation != !keys->rotation) return;
  if (queries->rotation) {
    for (const int input : {1, 2}) {
      if (queries->rotation->input(input) != keys->rotation->input(input)) return;
    }
    const bool interleaved = IsBool(queries->rotation->input(3), true);
    if (interleaved != IsBool(keys->rotation->input(3), true)) return;
  }
  std::vector<torch::jit::NamedValue> inputs;
  std::vector<int64_t> columns;
  for (const std::optional<Heads>& heads : {queries, keys, values}) {
    const Columns part = ColumnsOf(module, node, *heads);
    inputs.emplace_back(part.rows);
    columns.insert(columns.end(), {part.begin, part.end});
  }
  inputs.emplace_back(c10::IValue(columns));
  for (const std::optional<Heads>& heads : {queries, keys}) {
    inputs.emplace_back(heads->norm ? torch::jit::NamedValue(heads->norm->input(1))
                                    : torch::jit::NamedValue(c10::IValue()));
    inputs.emplace_back(heads->norm ? torch::jit::NamedValue(heads->norm->input(4))
                                    : torch::jit::NamedValue(0.0));
  }
  for (const int input : {1, 2, 3}) {
    inputs.emplace_back(queries->rotation ? torch::jit::NamedValue(queries->rotation->input(input))
                        : input < 3       ? torch::jit::NamedValue(c10::IValue())
                                          : torch::jit::NamedValue(false));
  }
  for (size_t i = 3; i < node->inputs().size(); ++i) inputs.emplace_back(node->input(i));
  Value* const result = Insert(node, "lmfusion::rotary_attention", inputs);
  joined->replaceAllUsesWith(result);
  node->output()->replaceAllUsesWith(result);  // what lies between is dead
  node->destroy();                             // it writes keys and values, so it would never be
}

}  // namespace

void FuseAttentions(Module& module) {
  ForEachNode(module, [&](Node* node) { FuseAttention(module, node); });
}

}  // namespace lmfusion
