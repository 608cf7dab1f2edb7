#include <ATen/ATen.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/lower_tuples.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/graph_nodes.h"
#include "model/graph_passes.h"

namespace lmfusion {
namespace {

using torch::jit::Node;
using torch::jit::Value;

// One product with a weight of the model.
struct Linear {
  Node* node;
  Value* input;
  Attribute weight_attribute;
  at::Tensor weight;  // [out, in]
  std::optional<at::Tensor> bias;
};

std::optional<at::Tensor> FloatTensor(const std::optional<Attribute>& attribute, int64_t dim) {
  if (!attribute || !attribute->value().isTensor()) return std::nullopt;
  const at::Tensor tensor = attribute->value().toTensor();
  const bool usable = tensor.dim() == dim && tensor.device().is_cpu() && tensor.numel() > 0 &&
                      (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
  return usable ? std::optional<at::Tensor>(tensor) : std::nullopt;
}

// aten::linear(x, w, b), and GPT-2's aten::addmm(b, x, w) with its weight the other way round.
std::optional<Linear> LinearOf(const torch::jit::Module& module, Node* node) {
  const bool linear = node->kind() == c10::aten::linear;
  const bool addmm = node->kind() == c10::aten::addmm;
  if (!linear && !addmm) return std::nullopt;
  if (addmm && !(IsNumber(node->input(3), 1) && IsNumber(node->input(4), 1))) return std::nullopt;
  Value* const weight_value = node->input(addmm ? 2 : 1);
  Value* const bias_value = node->input(addmm ? 0 : 2);
  const std::optional<Attribute> weight_attribute = AttributeOf(module, weight_value);
  const std::optional<at::Tensor> weight = FloatTensor(weight_attribute, 2);
  if (!weight) return std::nullopt;
  Linear found{node, node->input(addmm ? 1 : 0), *weight_attribute,
               addmm ? weight->t().contiguous() : *weight, std::nullopt};
  if (bias_value->type()->kind() != c10::TypeKind::NoneType) {
    found.bias = FloatTensor(AttributeOf(module, bias_value), 1);
    if (!found.bias) return std::nullopt;
  }
  return found;
}

c10::intrusive_ptr<PackedMatrix> Pack(const std::vector<Linear>& stacked, Compute compute) {
  std::vector<WeightRows> rows;
  std::vector<at::Tensor> biases;
  bool any_bias = false;
  for (const Linear& linear : stacked) {
    rows.push_back({linear.weight, WeightType::kFloat});
    any_bias = any_bias || linear.bias.has_value();
    biases.push_back(linear.bias ? linear.bias->to(at::kFloat)
                                 : at::zeros({linear.weight.size(0)}, at::kFloat));
  }
  std::optional<at::Tensor> bias;
  if (any_bias) bias = at::cat(biases);
  return PackedMatrix::Pack(rows, bias, compute);
}

class Packer {
 public:
  Packer(torch::jit::Module& module, Compute compute)
      : module_(module), compute_(compute), graph_(*ForwardGraph(module)) {}

  PackedGraph Run() {
    torch::jit::Inline(graph_);
    torch::jit::LowerSimpleTuples(graph_.block());
    PackedGraph packed;
    std::vector<std::vector<Linear>> groups = Groups(&packed);
    packed.output = PackOutput();
    for (const std::vector<Linear>& group : groups) {
      Replace(group);
      packed.linears += static_cast<int64_t>(group.size());
    }
    ReplaceEmbedding(packed.output);
    torch::jit::EliminateDeadCode(graph_.block());
    LetGo();
    return packed;
  }

 private:
  // Products of one input are neighbours: they become one.
  std::vector<std::vector<Linear>> Groups(PackedGraph* packed) {
    std::vector<std::vector<Linear>> groups;
    std::map<std::pair<Value*, int64_t>, size_t> group_of;
    for (Node* node : graph_.nodes()) {
      std::optional<Linear> linear = LinearOf(module_, node);
      if (!linear) {
        packed->plain_linears += node->kind() == c10::aten::linear ||
                                 node->kind() == c10::aten::addmm ||
                                 node->kind() == c10::aten::mm;
        continue;
      }
      const auto [found, is_new] =
          group_of.emplace(std::make_pair(linear->input, linear->weight.size(1)), groups.size());
      if (is_new) groups.emplace_back();
      groups[found->second].push_back(std::move(*linear));
    }
    return groups;
  }

  // A value that reads a packed matrix, which becomes an attribute of the module.
  Value* Reads(const c10::intrusive_ptr<PackedMatrix>& matrix) {
    const auto [found, is_new] = names_.emplace(matrix.get(), "");
    const auto type = c10::getCustomClassType<c10::intrusive_ptr<PackedMatrix>>();
    if (is_new) {
      found->second = "lmfusion_packed_" + std::to_string(names_.size());
      module_.register_attribute(found->second, type, c10::IValue(matrix));
    }
    Value* const value = graph_.insertGetAttr(graph_.inputs().at(0), found->second);
    value->setType(type);
    return value;
  }

  void Replace(const std::vector<Linear>& group) {
    const torch::jit::WithInsertPoint at_first(group.front().node);
    Value* const product =
        graph_.insert(c10::Symbol::fromQualString("lmfusion::linear"),
                      {group.front().input, Reads(Pack(group, compute_))});
    int64_t begin = 0;
    for (const Linear& linear : group) {
      const int64_t end = begin + linear.weight.size(0);
      Value* const part =
          group.size() == 1 ? product
                            : graph_.insert(c10::aten::slice, {product, -1, begin, end, 1});
      linear.node->output()->replaceAllUsesWith(part);
      consumed_.push_back(linear.weight_attribute);
      begin = end;
    }
    for (const Linear& linear : group) linear.node->destroy();
  }

  c10::intrusive_ptr<PackedMatrix> PackOutput() {
    const at::Tensor weight = module_.attr("output_weight").toTensor();
    std::optional<at::Tensor> bias;
    if (module_.hasattr("output_bias") && module_.attr("output_bias").isTensor()) {
      bias = module_.attr("output_bias").toTensor().to(at::kFloat);
    }
    consumed_.push_back({module_._ivalue(), "output_weight"});
    return PackedMatrix::Pack({{weight, WeightType::kFloat}}, bias, compute_);
  }

  // Embeddings tied to the output matrix are read from it, where packing keeps them as they are.
  void ReplaceEmbedding(const c10::intrusive_ptr<PackedMatrix>& output) {
    if (compute_ != Compute::kFloat32) return;
    const at::Tensor tied = module_.attr("output_weight").toTensor();
    std::vector<Node*> replaced;
    for (Node* node : graph_.nodes()) {
      if (node->kind() != c10::aten::embedding) continue;
      const std::optional<Attribute> attribute = AttributeOf(module_, node->input(0));
      const std::optional<at::Tensor> weight = FloatTensor(attribute, 2);
      if (!weight || weight->const_data_ptr() != tied.const_data_ptr() ||
          weight->sizes() != tied.sizes() || weight->strides() != tied.strides()) {
        continue;
      }
      const torch::jit::WithInsertPoint here(node);
      Value* const rows = graph_.insert(c10::Symbol::fromQualString("lmfusion::rows"),
                                        {Reads(output), node->input(1)});
      node->output()->replaceAllUsesWith(rows);
      consumed_.push_back(*attribute);
      replaced.push_back(node);
    }
    for (Node* node : replaced) node->destroy();
  }

  // Empties the float weights that the graph no longer reads.
  void LetGo() {
    std::vector<const void*> still_read;
    for (Node* node : graph_.nodes()) {
      for (Value* output : node->outputs()) {
        if (output->node()->kind() != c10::prim::GetAttr) continue;
        const std::optional<Attribute> attribute = AttributeOf(module_, output);
        if (attribute && attribute->value().isTensor()) {
          still_read.push_back(attribute->value().toTensor().storage().data());
        }
      }
    }
    for (const Attribute& attribute : consumed_) {
      const at::Tensor weight = attribute.value().toTensor();
      const void* data = weight.storage().data();
      if (std::find(still_read.begin(), still_read.end(), data) == still_read.end()) {
        attribute.owner->setAttr(attribute.name, at::empty({0}, weight.options()));
      }
    }
  }

  torch::jit::Module& module_;
  const Compute compute_;
  torch::jit::Graph& graph_;
  std::map<const PackedMatrix*, std::string> names_;
  std::vector<Attribute> consumed_;
};

}  // namespace

PackedGraph PackLinears(torch::jit::Module& module, Compute compute) {
  return Packer(module, compute).Run();
}

}  // namespace lmfusion
