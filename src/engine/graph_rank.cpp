#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "engine/graph_nodes.h"

namespace lmfusion {
namespace {

using torch::jit::Node;
using torch::jit::Value;

constexpr int64_t kUnknown = -1;

class Ranks {
 public:
  explicit Ranks(const torch::jit::Module& module) : module_(module) {}

  int64_t Of(const Value* value) {
    const auto found = known_.find(value);
    if (found != known_.end()) return found->second;
    const int64_t rank = Find(value);
    known_[value] = rank;
    return rank;
  }

 private:
  int64_t Find(const Value* value) {
    if (value->node()->kind() == c10::prim::Param) {  // tokens, positions: [T]
      return value->offset() == 1 || value->offset() == 2 ? 1 : kUnknown;
    }
    if (value->node()->kind() == c10::prim::GetAttr) {
      const std::optional<Attribute> attribute = AttributeOf(module_, value);
      const bool known = attribute && attribute->value().isTensor();
      return known ? attribute->value().toTensor().dim() : kUnknown;
    }
    if (NumberOf(value)) return 0;
    return value->node()->inputs().size() > 0 ? OfResult(value->node()) : kUnknown;
  }

  int64_t OfResult(const Node* node) {
    const std::string_view kind = node->kind().toQualString();
    if (kind == "lmfusion::rotary_attention") return 3;
    if (kind == "aten::view" || kind == "aten::reshape") {
      const Node* list = NodeOf(node->input(1), "prim::ListConstruct");
      return list ? static_cast<int64_t>(list->inputs().size()) : kUnknown;
    }
    if (kind == "lmfusion::rows" || kind == "aten::unsqueeze") {
      const int64_t rank = Of(node->input(kind == "lmfusion::rows" ? 1 : 0));
      return rank == kUnknown ? kUnknown : rank + 1;
    }
    if (kind == "aten::add" || kind == "aten::mul") {
      const int64_t first = Of(node->input(0)), second = Of(node->input(1));
      return std::min(first, second) == kUnknown ? kUnknown : std::max(first, second);
    }
    static const std::unordered_set<std::string_view> same = {"lmfusion::linear",
                                                              "lmfusion::linear_add",
                                                              "lmfusion::normalize",
                                                              "lmfusion::silu_mul",
                                                              "lmfusion::gelu_tanh_mul",
                                                              "lmfusion::gelu_tanh",
                                                              "aten::to",
                                                              "aten::slice",
                                                              "aten::contiguous"};
    return same.count(kind) > 0 ? Of(node->input(0)) : kUnknown;
  }

  const torch::jit::Module& module_;
  std::unordered_map<const Value*, int64_t> known_;
};

}  // namespace

int64_t RankOf(const torch::jit::Module& module, const Value* value) {
  return Ranks(module).Of(value);
}

}  // namespace lmfusion
