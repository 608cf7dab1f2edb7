#include "model/device_module.h"

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/library.h>

#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

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

std::optional<at::Tensor> TensorOf(const Value* value) {
  const auto constant = torch::jit::toIValue(value);
  if (!constant || !constant->isTensor()) return std::nullopt;
  return constant->toTensor();
}

// A copy of the forward graph, inlined, with the weights as constants.
std::shared_ptr<Graph> SelfContainedForward(const torch::jit::Module& module) {
  const torch::jit::GraphOptimizerEnabledGuard inlines(true);  // else Inline leaves calls alone
  const std::shared_ptr<Graph> graph = module.get_method("forward").graph()->copy();
  torch::jit::Inline(*graph);
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
  return graph;
}

class Rewriter {
 public:
  Rewriter(Graph& graph, c10::Device device, std::string compute)
      : graph_(graph), device_(device), compute_(std::move(compute)) {}

  void Run(Block* block) {
    std::vector<Node*> nodes(block->nodes().begin(), block->nodes().end());
    for (Node* node : nodes) {
      for (Block* inner : node->blocks()) Run(inner);
      if (compute_ != "float32") Narrow(node);
    }
  }

  // After unused constants are gone: what is left moves to the device. Single numbers stay: they
  // may combine with tensors of any device, and the host reads some of them.
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

  // The same storage moves once, whoever names it.
  at::Tensor OnDevice(const at::Tensor& tensor) {
    return Moved(tensor, "", [&] { return NarrowWeight{tensor.to(device_), std::nullopt}; }).values;
  }

  // An embedding table or output matrix: rows are looked up, so integers do not serve.
  at::Tensor Table(const at::Tensor& weight) {
    if (compute_ == "float32") return OnDevice(weight);
    const std::string type = compute_ == "float16" ? compute_ : "bfloat16";
    return Moved(weight, type, [&] { return ToDevice(Narrowed(weight, type)); }).values;
  }

  int64_t bytes() const { return bytes_; }

 private:
  void Narrow(Node* node) {
    static const auto embedding = c10::Symbol::fromQualString("aten::embedding");
    static const auto linear = c10::Symbol::fromQualString("aten::linear");
    static const auto addmm = c10::Symbol::fromQualString("aten::addmm");
    if (node->kind() == embedding) {
      const auto weight = TensorOf(node->input(0));
      if (!weight || weight->dim() != 2) return;
      const torch::jit::WithInsertPoint at(node);
      Replace(node, "lmfusion::narrow_embedding",
              {graph_.insertConstant(Table(*weight)), node->input(1)});
    } else if (node->kind() == linear) {
      const auto weight = TensorOf(node->input(1));
      if (weight && weight->dim() == 2) {
        ReplaceLinear(node, node->input(0), *weight, "linear", node->input(2));
      }
    } else if (node->kind() == addmm) {  // bias + x . weight, the layers of GPT-2
      const auto weight = TensorOf(node->input(2));
      const auto beta = torch::jit::toIValue(node->input(3));
      const auto alpha = torch::jit::toIValue(node->input(4));
      if (weight && weight->dim() == 2 && beta && alpha && beta->toScalar().toDouble() == 1 &&
          alpha->toScalar().toDouble() == 1) {
        ReplaceLinear(node, node->input(1), weight->t().contiguous(), "addmm", node->input(0));
      }
    }
  }

  void ReplaceLinear(Node* node, Value* x, const at::Tensor& weight, const char* form,
                     Value* bias) {
    const NarrowWeight narrow = Moved(weight, compute_ + form, [&] {
      return ToDevice(Narrowed(weight, compute_));
    });
    // One rounding for all layers that read the same activations.
    const at::ScalarType type = compute_ == "float16" ? at::kHalf : at::kBFloat16;
    Value*& rounded = rounded_[x];
    if (rounded == nullptr) {
      Node* after = x->node()->kind() == torch::jit::prim::Param ? nullptr : x->node();
      const torch::jit::WithInsertPoint at(after != nullptr ? after->next()
                                                            : *graph_.nodes().begin());
      rounded = graph_.insert(c10::Symbol::fromQualString("aten::to"),
                              {x, static_cast<int64_t>(type), false, false, c10::IValue()});
    }
    const torch::jit::WithInsertPoint at(node);
    Replace(node, "lmfusion::narrow_linear",
            {rounded, graph_.insertConstant(narrow.values),
             narrow.scales ? graph_.insertConstant(*narrow.scales)
                           : graph_.insertConstant(c10::IValue()),
             bias});
  }

  void Replace(Node* node, const char* name, const std::vector<Value*>& inputs) {
    Node* replacement = graph_.create(c10::Symbol::fromQualString(name), inputs);
    graph_.insertNode(replacement);
    node->output()->replaceAllUsesWith(replacement->output());
    node->destroy();
  }

  NarrowWeight ToDevice(const NarrowWeight& weight) const {
    NarrowWeight moved{weight.values.to(device_), std::nullopt};
    if (weight.scales) moved.scales = weight.scales->to(device_);
    return moved;
  }

  template <typename Make>
  NarrowWeight Moved(const at::Tensor& from, const std::string& form, const Make& make) {
    // A tensor this rewriter made itself.
    if (made_.count(from.const_data_ptr()) > 0 && form.empty()) return {from, std::nullopt};
    const auto key = std::make_pair(from.const_data_ptr(), form);
    auto found = moved_.find(key);
    if (found == moved_.end()) {
      found = moved_.emplace(key, make()).first;
      sources_.push_back(from);  // the address stays taken
      bytes_ += Count(found->second.values);
      if (found->second.scales) bytes_ += Count(*found->second.scales);
    }
    return found->second;
  }

  int64_t Count(const at::Tensor& tensor) {
    made_.insert(tensor.const_data_ptr());
    return static_cast<int64_t>(tensor.nbytes());
  }

  Graph& graph_;
  const c10::Device device_;
  const std::string compute_;
  std::unordered_map<Value*, Value*> rounded_;
  std::map<std::pair<const void*, std::string>, NarrowWeight> moved_;
  std::unordered_set<const void*> made_;
  std::vector<at::Tensor> sources_;
  int64_t bytes_ = 0;
};

}  // namespace

DeviceModule MoveToDevice(const torch::jit::Module& module, OutputLayer output, c10::Device device,
                          const std::string& compute) {
  DeviceModule result;
  const auto graph = SelfContainedForward(module);
  Rewriter rewriter(*graph, device, compute);
  rewriter.Run(graph->block());
  torch::jit::EliminateDeadCode(graph);
  rewriter.MoveConstants(graph->block());
  result.forward = std::make_shared<torch::jit::GraphExecutor>(graph, "forward");
  result.output = std::move(output);
  result.output.weight = rewriter.Table(result.output.weight);
  if (result.output.bias) result.output.bias = rewriter.OnDevice(*result.output.bias);
  result.weight_bytes = rewriter.bytes();
  return result;
}

TORCH_LIBRARY_FRAGMENT(lmfusion, m) {
  m.def("narrow_embedding(Tensor weight, Tensor ids) -> Tensor", &NarrowEmbedding);
}

}  // namespace lmfusion
