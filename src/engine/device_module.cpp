#include "engine/device_module.h"

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/library.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/weight_readings.h"
#include "lmfusion/errors.h"
#include "ops/narrow_weights.h"

namespace lmfusion {
namespace {

using torch::jit::Block;
using torch::jit::Graph;
using torch::jit::Node;
using torch::jit::Value;

at::Tensor NarrowEmbedding(const at::Tensor& weight, const at::Tensor& ids) {
  std::vector<int64_t> sizes = ids.sizes().vec();
  sizes.push_back(weight.size(1));
  return weight.index_select(0, ids.reshape({-1})).to(at::kFloat).view(sizes);
}

// A copy of the forward graph, inlined; its first input is the module.
std::shared_ptr<Graph> InlinedForward(const torch::jit::Module& module) {
  const torch::jit::GraphOptimizerEnabledGuard inlines(true);  // else Inline leaves calls alone
  const std::shared_ptr<Graph> graph = module.get_method("forward").graph()->copy();
  torch::jit::Inline(*graph);
  torch::jit::EliminateDeadCode(graph);  // what it does not read is not needed
  return graph;
}

// Makes what the graph still reads of its module constants, and drops the module.
void MakeSelfContained(const torch::jit::Module& module, Graph* graph) {
  std::unordered_map<const Value*, c10::IValue> objects = {{graph->inputs()[0], module._ivalue()}};
  const std::vector<Node*> nodes(graph->nodes().begin(), graph->nodes().end());
  std::vector<Node*> read;
  for (Node* node : nodes) {
    if (node->kind() != torch::jit::prim::GetAttr) continue;
    const auto owner = objects.find(node->input());
    if (owner == objects.end()) continue;
    c10::IValue value = owner->second.toObjectRef().getAttr(node->s(torch::jit::attr::name));
    read.push_back(node);
    if (value.isObject()) {
      objects.emplace(node->output(), std::move(value));
      continue;
    }
    if (value.isTensor()) value = value.toTensor().detach();
    const torch::jit::WithInsertPoint at(node);
    node->output()->replaceAllUsesWith(graph->insertConstant(value));
  }
  for (size_t i = read.size(); i-- > 0;) {
    for (const auto& use : read[i]->output()->uses()) {
      throw ModelFileError("a traced model passes a module to " +
                           std::string(use.user->kind().toQualString()) +
                           ", which cannot be moved to a device");
    }
    read[i]->destroy();
  }
  graph->eraseInput(0);
}

class Mover {
 public:
  Mover(const torch::jit::Module& module, StoredWeights& weights, c10::Device device,
        Compute compute)
      : module_(module),
        weights_(weights),
        device_(device),
        compute_(compute),
        graph_(InlinedForward(module)),
        readings_(module, graph_->block()) {}

  DeviceModule Run() {
    DeviceModule result;
    // First the output matrix, and with it the embeddings that are tied to it.
    const Attribute output{module_._ivalue(), "output_weight"};
    const std::optional<WeightRows> weight = weights_.Matrix(output);
    if (!weight) throw ModelFileError("the output_weight of a model is no matrix of numbers");
    result.output.weight = Table(output, *weight);
    Rewrite(graph_->block());
    Consume(output);
    weights_.Widen();
    MakeSelfContained(module_, graph_.get());
    torch::jit::EliminateDeadCode(graph_);
    MoveConstants(graph_->block());
    if (module_.hasattr("output_bias") && module_.attr("output_bias").isTensor()) {
      result.output.bias = OnDevice(module_.attr("output_bias").toTensor());
    }
    result.forward = std::make_shared<torch::jit::GraphExecutor>(graph_, "forward");
    result.weight_bytes = bytes_;
    return result;
  }

 private:
  using Memory = const void*;

  void Rewrite(Block* block) {
    const std::vector<Node*> nodes(block->nodes().begin(), block->nodes().end());
    for (Node* node : nodes) {
      for (Block* inner : node->blocks()) Rewrite(inner);
      if (node->kind() == c10::aten::embedding) {
        Embed(node);
      } else if (IsLinear(node)) {
        ReplaceLinear(node, "lmfusion::narrow_linear", {});
      } else if (node->kind() == c10::Symbol::fromQualString("lmfusion::linear_add")) {
        ReplaceLinear(node, "lmfusion::narrow_linear_add", {node->input(3), node->input(4)});
      } else if (node->kind() == c10::Symbol::fromQualString("lmfusion::experts")) {
        ReplaceExperts(node);
      }
    }
  }

  void Embed(Node* node) {
    const std::optional<Attribute> attribute = AttributeOf(module_, node->input(0));
    const std::optional<WeightRows> weight = weights_.Matrix(attribute);
    if (!weight) return;
    const torch::jit::WithInsertPoint at(node);
    Replace(node, "lmfusion::narrow_embedding",
            {graph_->insertConstant(Table(*attribute, *weight)), node->input(1)});
    Consume(*attribute);
  }

  // linear(x, weight, bias, ..): `more` are the inputs of the new operator behind the bias.
  void ReplaceLinear(Node* node, const char* name, const std::vector<Value*>& more) {
    const std::optional<Attribute> attribute = AttributeOf(module_, node->input(1));
    const std::optional<WeightRows> weight = weights_.Matrix(attribute);
    if (!weight) return;
    const torch::jit::WithInsertPoint at(node);
    const auto [values, scales] = Narrow(*attribute, *weight);
    std::vector<Value*> inputs = {node->input(0), values, scales, node->input(2)};
    inputs.insert(inputs.end(), more.begin(), more.end());
    Replace(node, name, inputs);
    Consume(*attribute);
  }

  // experts(x, logits, gate_up, its bias, down, its bias, residual, ..)
  void ReplaceExperts(Node* node) {
    const std::optional<Attribute> gate_up = AttributeOf(module_, node->input(2));
    const std::optional<Attribute> down = AttributeOf(module_, node->input(4));
    const std::optional<WeightRows> first = weights_.Matrix(gate_up), last = weights_.Matrix(down);
    if (!first || !last) return;
    const torch::jit::WithInsertPoint at(node);
    const auto [first_values, first_scales] = Narrow(*gate_up, *first);
    const auto [last_values, last_scales] = Narrow(*down, *last);
    std::vector<Value*> inputs = {node->input(0), node->input(1), first_values, first_scales,
                                  node->input(3), last_values,    last_scales,  node->input(5)};
    for (size_t i = 6; i < node->inputs().size(); ++i) inputs.push_back(node->input(i));
    Replace(node, "lmfusion::narrow_experts", inputs);
    Consume(*gate_up);
    Consume(*down);
  }

  // Constants: the values and the scales of a matrix on the device.
  std::pair<Value*, Value*> Narrow(const Attribute& attribute, const WeightRows& weight) {
    const NarrowWeight narrow = Moved(attribute, weight, compute_);
    return {graph_->insertConstant(narrow.values),
            graph_->insertConstant(narrow.scales ? c10::IValue(*narrow.scales) : c10::IValue())};
  }

  void Replace(Node* node, const char* name, const std::vector<Value*>& inputs) {
    Node* replacement = graph_->create(c10::Symbol::fromQualString(name), inputs);
    graph_->insertNode(replacement);
    node->output()->replaceAllUsesWith(replacement->output());
    node->destroy();
  }

  // An embedding table or output matrix: rows are looked up, so integers do not serve.
  at::Tensor Table(const Attribute& attribute, const WeightRows& weight) {
    const bool integers = compute_ == Compute::kInt8 || compute_ == Compute::kInt4;
    return Moved(attribute, weight, integers ? Compute::kBFloat16 : compute_).values;
  }

  // Tied weights move once, in each type that they are used in.
  NarrowWeight Moved(const Attribute& attribute, const WeightRows& weight, Compute type) {
    NarrowWeight& moved = moved_[MemoryOf(attribute)][{type, weight.data.sizes().vec()}];
    if (moved.values.defined()) return moved;
    const NarrowWeight narrow = Narrowed(weight, type);
    moved.values = narrow.values.to(device_);
    if (narrow.scales) moved.scales = narrow.scales->to(device_);
    bytes_ += moved.bytes();
    on_device_.insert(moved.values.const_data_ptr());
    if (moved.scales) on_device_.insert(moved.scales->const_data_ptr());
    return moved;
  }

  // The graph reads the weight once less; after the last time, what the file stored is released.
  void Consume(const Attribute& attribute) {
    if (!readings_.IsLast(attribute)) return;
    moved_.erase(MemoryOf(attribute));  // its address may be taken by other weights
    weights_.Release(attribute);
  }

  // What is left moves to the device. Single numbers stay: they may combine with tensors of any
  // device, and the host reads some of them.
  void MoveConstants(Block* block) {
    for (Node* node : block->nodes()) {
      for (Block* inner : node->blocks()) MoveConstants(inner);
      if (node->kind() != torch::jit::prim::Constant ||
          !node->hasAttribute(torch::jit::attr::value)) {
        continue;
      }
      if (node->output()->type()->kind() == c10::TypeKind::DeviceObjType) {
        node->s_(torch::jit::attr::value, device_.str());
      } else if (node->kindOf(torch::jit::attr::value) == torch::jit::AttributeKind::t) {
        const at::Tensor tensor = node->t(torch::jit::attr::value);
        if (tensor.dim() > 0) node->t_(torch::jit::attr::value, OnDevice(tensor));
      }
    }
  }

  at::Tensor OnDevice(const at::Tensor& tensor) {
    if (on_device_.count(tensor.const_data_ptr()) > 0) return tensor;
    at::Tensor& moved = others_[tensor.const_data_ptr()];
    if (!moved.defined()) {
      moved = tensor.to(device_);
      bytes_ += static_cast<int64_t>(moved.nbytes());
      sources_.push_back(tensor);  // its address stays taken
    }
    return moved;
  }

  using Form = std::pair<Compute, std::vector<int64_t>>;

  const torch::jit::Module& module_;
  StoredWeights& weights_;
  const c10::Device device_;
  const Compute compute_;
  const std::shared_ptr<Graph> graph_;
  WeightReadings readings_;
  std::map<Memory, std::map<Form, NarrowWeight>> moved_;
  std::unordered_set<Memory> on_device_;  // what Moved made
  std::map<Memory, at::Tensor> others_;
  std::vector<at::Tensor> sources_;
  int64_t bytes_ = 0;
};

}  // namespace

DeviceModule MoveToDevice(const torch::jit::Module& module, StoredWeights& weights,
                          c10::Device device, Compute compute) {
  return Mover(module, weights, device, compute).Run();
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def("narrow_embedding(Tensor weight, Tensor ids) -> Tensor", &NarrowEmbedding);
}

}  // namespace lmfusion
