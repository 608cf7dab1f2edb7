#include "engine/packed_graph.h"

#include <ATen/ATen.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/graph_nodes.h"
#include "engine/weight_readings.h"
#include "lmfusion/errors.h"
#include "ops/pack_weights.h"
#include "ops/packed_experts.h"

namespace lmfusion {
namespace {

using torch::jit::NamedValue;
using torch::jit::Node;
using torch::jit::Value;

bool IsWhole(const at::Tensor& tensor) {
  return tensor.is_contiguous() && tensor.storage_offset() == 0;
}

// Memory and sizes of a matrix.
using Table = std::pair<const void*, std::vector<int64_t>>;

class Packer {
 public:
  Packer(torch::jit::Module& module, StoredWeights& weights, Compute compute)
      : module_(module), weights_(weights), compute_(compute), graph_(*ForwardGraph(module)) {}

  PackedGraph Run() {
    torch::jit::Inline(graph_);
    torch::jit::EliminateDeadCode(graph_.block());  // what it does not read is not needed
    const Attribute output{module_._ivalue(), "output_weight"};
    readings_.emplace(module_, graph_.block());
    packed_.output = PackOutput(output);
    const std::vector<Node*> nodes(graph_.nodes().begin(), graph_.nodes().end());
    for (Node* node : nodes) {
      if (node->kind() == c10::aten::embedding) ReplaceEmbedding(node);
    }
    Consume(output);
    const std::vector<Node*> rest(graph_.nodes().begin(), graph_.nodes().end());
    for (Node* node : rest) Replace(node);
    torch::jit::EliminateDeadCode(graph_.block());
    weights_.Widen();
    return std::move(packed_);
  }

 private:
  void Replace(Node* node) {
    const std::string kind = node->kind().toQualString();
    if (IsLinear(node)) {
      ReplaceLinear(node, "lmfusion::linear", {});
    } else if (kind == "lmfusion::linear_add") {
      ++packed_.fused_operators;
      ReplaceLinear(node, "lmfusion::linear_add", {node->input(3), node->input(4)});
    } else if (kind == "lmfusion::experts") {
      ++packed_.fused_operators;
      ReplaceExperts(node);
    } else if (kind == "aten::addmm" || kind == "aten::mm") {
      ++packed_.plain_linears;
    } else {
      packed_.fused_operators += kind.rfind("lmfusion::", 0) == 0 && kind != "lmfusion::rows" &&
                                 kind != "lmfusion::tree_attention";
    }
  }

  // linear(x, weight, bias, ..): `more` are the inputs of the new operator behind the matrix.
  void ReplaceLinear(Node* node, const char* name, const std::vector<NamedValue>& more) {
    const std::optional<Attribute> attribute = AttributeOf(module_, node->input(1));
    const std::optional<WeightRows> weight = weights_.Matrix(attribute);
    const std::optional<at::Tensor> bias = BiasIn(AttributeOf(module_, node->input(2)));
    if (!weight || !(bias || IsNone(node->input(2)))) {
      ++packed_.plain_linears;
      return;
    }
    const torch::jit::WithInsertPoint here(node);
    std::vector<NamedValue> inputs = {node->input(0), Reads(Pack(*weight, bias, compute_))};
    inputs.insert(inputs.end(), more.begin(), more.end());
    ReplaceBy(node, name, inputs);
    Consume(*attribute);
    ++packed_.linears;
  }

  // experts(x, logits, gate_up, its bias, down, its bias, residual, ..)
  void ReplaceExperts(Node* node) {
    const std::optional<Attribute> gate_up = AttributeOf(module_, node->input(2));
    const std::optional<Attribute> down = AttributeOf(module_, node->input(4));
    const std::optional<WeightRows> first = weights_.Matrix(gate_up), last = weights_.Matrix(down);
    const std::optional<c10::IValue> count = torch::jit::toIValue(node->input(8));
    if (!first || !last || !count) return;
    auto experts = c10::make_intrusive<PackedExperts>(
        *first, BiasIn(AttributeOf(module_, node->input(3))), *last,
        BiasIn(AttributeOf(module_, node->input(5))), count->toInt(), compute_);
    packed_.bytes += experts->bytes();
    packed_.linears += 2;
    const torch::jit::WithInsertPoint here(node);
    std::vector<NamedValue> inputs = {node->input(0), node->input(1), Reads(experts)};
    for (size_t i = 6; i < node->inputs().size(); ++i) inputs.emplace_back(node->input(i));
    ReplaceBy(node, "lmfusion::experts", inputs);
    Consume(*gate_up);
    Consume(*down);
  }

  // Embeddings are read from packed matrices, to the bit: from the output matrix where they are
  // tied to it and it lost nothing, else from one of their own.
  void ReplaceEmbedding(Node* node) {
    const std::optional<Attribute> attribute = AttributeOf(module_, node->input(0));
    const std::optional<WeightRows> weight = weights_.Matrix(attribute);
    if (!weight || !IsWhole(weight->data)) return;
    c10::intrusive_ptr<PackedMatrix>& table =
        tables_[{MemoryOf(*attribute), weight->data.sizes().vec()}];
    if (!table) table = Pack(*weight, std::nullopt, Compute::kFloat32);
    const torch::jit::WithInsertPoint here(node);
    ReplaceBy(node, "lmfusion::rows", {Reads(table), node->input(1)});
    Consume(*attribute);
  }

  c10::intrusive_ptr<PackedMatrix> PackOutput(const Attribute& output) {
    const std::optional<WeightRows> weight = weights_.Matrix(output);
    if (!weight) throw ModelFileError("the output_weight of a model is no matrix of numbers");
    std::optional<at::Tensor> bias;
    if (module_.hasattr("output_bias")) bias = BiasIn(Attribute{module_._ivalue(), "output_bias"});
    c10::intrusive_ptr<PackedMatrix> matrix = Pack(*weight, bias, compute_);
    if (KeepsWeights(*weight, compute_) && IsWhole(weight->data)) {
      tables_[{MemoryOf(output), weight->data.sizes().vec()}] = matrix;
    }
    return matrix;
  }

  c10::intrusive_ptr<PackedMatrix> Pack(const WeightRows& rows,
                                        const std::optional<at::Tensor>& bias, Compute compute) {
    c10::intrusive_ptr<PackedMatrix> matrix = PackedMatrix::Pack({rows}, bias, compute);
    packed_.bytes += matrix->bytes();
    return matrix;
  }

  // A value that reads packed weights, which become an attribute of the module.
  template <class Packed>
  Value* Reads(const c10::intrusive_ptr<Packed>& packed) {
    const auto [found, is_new] = names_.emplace(packed.get(), "");
    const auto& type = c10::getCustomClassType<c10::intrusive_ptr<Packed>>();
    if (is_new) {
      found->second = "lmfusion_packed_" + std::to_string(names_.size());
      module_.register_attribute(found->second, type, c10::IValue(packed));
    }
    Value* const value = graph_.insertGetAttr(graph_.inputs().at(0), found->second);
    value->setType(type);
    return value;
  }

  // The graph reads the weight once less; after the last time, what the file stored is released.
  void Consume(const Attribute& attribute) {
    if (readings_->IsLast(attribute)) weights_.Release(attribute);
  }

  torch::jit::Module& module_;
  StoredWeights& weights_;
  const Compute compute_;
  torch::jit::Graph& graph_;
  PackedGraph packed_;
  std::map<const void*, std::string> names_;                  // of attributes, by what they hold
  std::map<Table, c10::intrusive_ptr<PackedMatrix>> tables_;  // that embeddings are read from
  std::optional<WeightReadings> readings_;
};

}  // namespace

PackedGraph PackWeightsOf(torch::jit::Module& module, StoredWeights& weights, Compute compute) {
  return Packer(module, weights, compute).Run();
}

}  // namespace lmfusion
