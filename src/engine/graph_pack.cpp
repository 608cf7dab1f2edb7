#include <ATen/ATen.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/lower_tuples.h>

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/graph_nodes.h"
#include "engine/graph_passes.h"
#include "engine/weight_readings.h"
#include "lmfusion/errors.h"
#include "ops/pack_weights.h"

namespace lmfusion {
namespace {

using torch::jit::Node;
using torch::jit::Value;

// One product with a weight of the model.
struct Linear {
  Node* node;
  Value* input;
  Attribute weight;
  WeightType type;
  at::ScalarType number;
  bool transposed;  // [in, out], as GPT-2 has it
  int64_t outputs;
  std::optional<at::Tensor> bias;
};

std::optional<at::Tensor> BiasIn(const std::optional<Attribute>& attribute) {
  if (!attribute || !attribute->value().isTensor()) return std::nullopt;
  const at::Tensor bias = attribute->value().toTensor();
  const bool usable = bias.dim() == 1 && bias.device().is_cpu() && bias.is_floating_point();
  return usable ? std::optional<at::Tensor>(bias.to(at::kFloat)) : std::nullopt;
}

// aten::linear(x, w, b), and GPT-2's aten::addmm(b, x, w) with its weight the other way round.
std::optional<Linear> LinearOf(const torch::jit::Module& module, const StoredWeights& weights,
                               Node* node) {
  const bool linear = node->kind() == c10::aten::linear;
  const bool addmm = node->kind() == c10::aten::addmm;
  if (!linear && !addmm) return std::nullopt;
  if (addmm && !(IsNumber(node->input(3), 1) && IsNumber(node->input(4), 1))) return std::nullopt;
  Value* const bias_value = node->input(addmm ? 0 : 2);
  const std::optional<Attribute> attribute = AttributeOf(module, node->input(addmm ? 2 : 1));
  const std::optional<WeightRows> weight = weights.Matrix(attribute);
  if (!weight || (addmm && weight->type != WeightType::kFloat)) return std::nullopt;
  Linear found{node,
               node->input(addmm ? 1 : 0),
               *attribute,
               weight->type,
               weight->data.scalar_type(),
               addmm,
               weight->data.size(addmm ? 1 : 0),
               std::nullopt};
  if (bias_value->type()->kind() != c10::TypeKind::NoneType) {
    found.bias = BiasIn(AttributeOf(module, bias_value));
    if (!found.bias) return std::nullopt;
  }
  return found;
}

bool IsWhole(const at::Tensor& tensor) {
  return tensor.is_contiguous() && tensor.storage_offset() == 0;
}

class Packer {
 public:
  Packer(torch::jit::Module& module, StoredWeights& weights, Compute compute)
      : module_(module), weights_(weights), compute_(compute), graph_(*ForwardGraph(module)) {}

  PackedGraph Run() {
    torch::jit::Inline(graph_);
    torch::jit::LowerSimpleTuples(graph_.block());
    torch::jit::EliminateDeadCode(graph_.block());  // what it does not read is not needed
    const Attribute output{module_._ivalue(), "output_weight"};
    readings_.emplace(module_, graph_.block());
    packed_.output = PackOutput(output);
    ReplaceEmbeddings(output);
    Consume(output);
    for (const std::vector<Linear>& group : Groups()) {
      Replace(group);
      packed_.linears += static_cast<int64_t>(group.size());
    }
    torch::jit::EliminateDeadCode(graph_.block());
    weights_.Widen();
    return std::move(packed_);
  }

 private:
  // Products of one input are neighbours: they become one, where their weights are of one type.
  std::vector<std::vector<Linear>> Groups() {
    std::vector<std::vector<Linear>> groups;
    std::map<std::tuple<Value*, WeightType, at::ScalarType>, size_t> group_of;
    for (Node* node : graph_.nodes()) {
      std::optional<Linear> linear = LinearOf(module_, weights_, node);
      if (!linear) {
        packed_.plain_linears += node->kind() == c10::aten::linear ||
                                 node->kind() == c10::aten::addmm || node->kind() == c10::aten::mm;
        continue;
      }
      const auto key = std::make_tuple(linear->input, linear->type, linear->number);
      const auto [found, is_new] = group_of.emplace(key, groups.size());
      if (is_new) groups.emplace_back();
      groups[found->second].push_back(std::move(*linear));
    }
    return groups;
  }

  c10::intrusive_ptr<PackedMatrix> Pack(const std::vector<WeightRows>& rows,
                                        const std::optional<at::Tensor>& bias, Compute compute) {
    c10::intrusive_ptr<PackedMatrix> matrix = PackedMatrix::Pack(rows, bias, compute);
    packed_.bytes += matrix->bytes();
    return matrix;
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

  c10::intrusive_ptr<PackedMatrix> PackGroup(const std::vector<Linear>& group) {
    std::vector<WeightRows> rows;
    std::vector<at::Tensor> biases;
    bool any_bias = false;
    for (const Linear& linear : group) {
      rows.push_back(*weights_.Matrix(linear.weight));
      if (linear.transposed) rows.back().data = rows.back().data.t();
      any_bias = any_bias || linear.bias.has_value();
      biases.push_back(linear.bias ? *linear.bias : at::zeros({linear.outputs}, at::kFloat));
    }
    std::optional<at::Tensor> bias;
    if (any_bias) bias = at::cat(biases);
    return Pack(rows, bias, compute_);
  }

  void Replace(const std::vector<Linear>& group) {
    const torch::jit::WithInsertPoint at_first(group.front().node);
    Value* const product = graph_.insert(c10::Symbol::fromQualString("lmfusion::linear"),
                                         {group.front().input, Reads(PackGroup(group))});
    int64_t begin = 0;
    for (const Linear& linear : group) {
      const int64_t end = begin + linear.outputs;
      Value* const part = group.size() == 1
                              ? product
                              : graph_.insert(c10::aten::slice, {product, -1, begin, end, 1});
      linear.node->output()->replaceAllUsesWith(part);
      begin = end;
    }
    for (const Linear& linear : group) {
      linear.node->destroy();
      Consume(linear.weight);
    }
  }

  c10::intrusive_ptr<PackedMatrix> PackOutput(const Attribute& output) {
    const std::optional<WeightRows> weight = weights_.Matrix(output);
    if (!weight) throw ModelFileError("the output_weight of a model is no matrix of numbers");
    std::optional<at::Tensor> bias;
    if (module_.hasattr("output_bias")) bias = BiasIn(Attribute{module_._ivalue(), "output_bias"});
    return Pack({*weight}, bias, compute_);
  }

  // Embeddings are read from packed matrices, to the bit: from the output matrix where they are
  // tied to it and it lost nothing, else from one of their own.
  void ReplaceEmbeddings(const Attribute& output) {
    using Table = std::pair<const void*, std::vector<int64_t>>;  // memory and sizes
    std::map<Table, c10::intrusive_ptr<PackedMatrix>> tables;
    const WeightRows tied = *weights_.Matrix(output);
    if (KeepsWeights(tied, compute_) && IsWhole(tied.data)) {
      tables[{MemoryOf(output), tied.data.sizes().vec()}] = packed_.output;
    }
    std::vector<Node*> replaced;
    for (Node* node : graph_.nodes()) {
      if (node->kind() != c10::aten::embedding) continue;
      const std::optional<Attribute> attribute = AttributeOf(module_, node->input(0));
      const std::optional<WeightRows> weight = weights_.Matrix(attribute);
      if (!weight || !IsWhole(weight->data)) continue;
      c10::intrusive_ptr<PackedMatrix>& table =
          tables[{MemoryOf(*attribute), weight->data.sizes().vec()}];
      if (!table) table = Pack({*weight}, std::nullopt, Compute::kFloat32);
      const torch::jit::WithInsertPoint here(node);
      Value* const rows = graph_.insert(c10::Symbol::fromQualString("lmfusion::rows"),
                                        {Reads(table), node->input(1)});
      node->output()->replaceAllUsesWith(rows);
      replaced.push_back(node);
    }
    for (Node* node : replaced) {
      const Attribute attribute = *AttributeOf(module_, node->input(0));
      node->destroy();
      Consume(attribute);
    }
  }

  // One reading less; after the last one the weights as they were stored go.
  void Consume(const Attribute& attribute) {
    if (readings_->IsLast(attribute)) weights_.Release(attribute);
  }

  torch::jit::Module& module_;
  StoredWeights& weights_;
  const Compute compute_;
  torch::jit::Graph& graph_;
  PackedGraph packed_;
  std::map<const PackedMatrix*, std::string> names_;
  std::optional<WeightReadings> readings_;
};

}  // namespace

PackedGraph PackLinears(torch::jit::Module& module, StoredWeights& weights, Compute compute) {
  return Packer(module, weights, compute).Run();
}

}  // namespace lmfusion
