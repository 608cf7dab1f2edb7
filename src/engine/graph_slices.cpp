#include <optional>
#include <vector>

#include "engine/graph_nodes.h"
#include "engine/graph_passes.h"

// Parts of a product, in one form, so that the patterns that take them know only slices.

namespace lmfusion {
namespace {

using torch::jit::Module;
using torch::jit::Node;
using torch::jit::Value;

c10::intrusive_ptr<PackedMatrix> MatrixOf(const Module& module, const Value* value) {
  const Node* linear = NodeOf(value, "lmfusion::linear");
  if (!linear) return nullptr;
  const std::optional<Attribute> matrix = AttributeOf(module, linear->input(1));
  return matrix ? matrix->value().toCustomClass<PackedMatrix>() : nullptr;
}

// How many columns a product has, as it came or as a view of it; 0: not known.
int64_t ColumnsOf(const Module& module, const Value* value) {
  if (const auto matrix = MatrixOf(module, value)) return matrix->out_features();
  const Node* view = NodeOf(value, "aten::view");
  const auto matrix = view ? MatrixOf(module, view->input(0)) : nullptr;
  const Node* list = matrix ? NodeOf(view->input(1), "prim::ListConstruct") : nullptr;
  const bool same = list && list->inputs().size() > 0 &&
                    IsNumber(list->inputs().back(), static_cast<double>(matrix->out_features()));
  return same ? matrix->out_features() : 0;
}

// The widths of the parts of a split or chunk; none where they are not known.
std::vector<int64_t> WidthsOf(const Node* node, int64_t columns, int64_t parts) {
  if (node->kind() == c10::aten::split_with_sizes) {
    const auto sizes = NumbersOf(node->input(1));
    if (!sizes) return {};
    return {sizes->begin(), sizes->end()};
  }
  const std::optional<double> number = NumberOf(node->input(1));
  if (!number || columns % parts != 0) return {};
  const int64_t width = columns / parts;
  const int64_t expected = node->kind() == c10::aten::chunk ? parts : width;
  if (*number != static_cast<double>(expected)) return {};
  return std::vector<int64_t>(parts, width);
}

void SliceSplit(const Module& module, Node* node) {
  const bool splits = node->kind() == c10::aten::split || node->kind() == c10::aten::chunk ||
                      node->kind() == c10::aten::split_with_sizes;
  if (!splits || !IsUsedOnce(node->output())) return;
  Node* const unpack = node->output()->uses()[0].user;
  if (unpack->kind() != c10::prim::ListUnpack) return;
  const int64_t columns = ColumnsOf(module, node->input(0));
  const bool is_last = IsNumber(node->input(2), -1) ||
                       (IsNumber(node->input(2), 2) && RankOf(module, node->input(0)) == 3);
  if (columns == 0 || !is_last) return;
  const auto parts = static_cast<int64_t>(unpack->outputs().size());
  const std::vector<int64_t> widths = WidthsOf(node, columns, parts);
  int64_t end = 0;
  for (const int64_t width : widths) end += width;
  if (static_cast<int64_t>(widths.size()) != parts || end != columns) return;
  int64_t begin = 0;
  for (int64_t part = 0; part < parts; begin += widths[part++]) {
    unpack->output(part)->replaceAllUsesWith(
        Insert(unpack, "aten::slice", {node->input(0), -1, begin, begin + widths[part], 1}));
  }
}

bool IsSize(const Value* value, const Value* x, double dim) {
  const Node* size = NodeOf(value, "aten::size");
  return size && size->inputs().size() == 2 && size->input(0) == x && IsNumber(size->input(1), dim);
}

// view(linear(view(x, [-1, in])), [size(x, 0), size(x, 1), out]), as GPT-2 has it: linear(x)
void TakeRowsAsTheyAre(const Module& module, Node* view) {
  if (view->kind() != c10::aten::view || !IsUsedOnce(view->input(0))) return;
  const auto matrix = MatrixOf(module, view->input(0));
  const Node* sizes = NodeOf(view->input(1), "prim::ListConstruct");
  if (!matrix || !sizes || sizes->inputs().size() != 3) return;
  Node* const linear = view->input(0)->node();
  const Node* flat = NodeOf(linear->input(0), "aten::view");
  const Node* flat_sizes = flat ? NodeOf(flat->input(1), "prim::ListConstruct") : nullptr;
  if (!flat_sizes || flat_sizes->inputs().size() != 2) return;
  Value* const x = linear->input(0)->node()->input(0);
  const bool is_flat = IsNumber(flat_sizes->input(0), -1) && IsSize(flat_sizes->input(1), x, -1);
  const bool is_back = IsSize(sizes->input(0), x, 0) && IsSize(sizes->input(1), x, 1) &&
                       IsNumber(sizes->input(2), static_cast<double>(matrix->out_features()));
  if (!is_flat || !is_back) return;
  view->output()->replaceAllUsesWith(Insert(view, "lmfusion::linear", {x, linear->input(1)}));
}

}  // namespace

void SliceProducts(Module& module) {
  ForEachNode(module, [&](Node* node) { SliceSplit(module, node); });
  ForEachNode(module, [&](Node* node) { TakeRowsAsTheyAre(module, node); });
}

}  // namespace lmfusion
