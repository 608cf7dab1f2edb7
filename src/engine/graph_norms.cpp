#include <ATen/ATen.h>

#include <optional>
#include <string>

#include "engine/graph_nodes.h"
#include "engine/graph_passes.h"

// Norms over the last dimension become lmfusion::normalize, first without their weight, which then
// joins them. Its inputs: x, weight, bias, residual, epsilon, centered.

namespace lmfusion {
namespace {

using torch::jit::Module;
using torch::jit::Node;
using torch::jit::Value;

// The x of mean(x, [-1], keepdim=True).
Value* AveragedIn(const Value* value) {
  Node* const mean = NodeOf(value, "aten::mean");
  if (!mean || mean->inputs().size() != 4 || !IsListOf(mean->input(1), {-1}) ||
      !IsBool(mean->input(2), true) || !IsNone(mean->input(3))) {
    return nullptr;
  }
  return mean->input(0);
}

// The x of x - mean(x).
Value* CenteredIn(const Value* value) {
  Node* const difference = NodeOf(value, "aten::sub");
  if (!difference || !IsNumber(difference->input(2), 1)) return nullptr;
  Value* const x = difference->input(0);
  return AveragedIn(difference->input(1)) == x ? x : nullptr;
}

// x * rsqrt(mean(x^2) + epsilon), where x may be y - mean(y)
bool FuseNorm(Node* product) {
  if (product->kind() != c10::aten::mul) return false;
  for (const int side : {0, 1}) {
    Value* const x = product->input(side);
    Node* const root = NodeOf(product->input(1 - side), "aten::rsqrt");
    Node* const sum = root ? SumOf(root->input(0)) : nullptr;
    if (!sum) continue;
    const std::optional<double> epsilon = NumberOf(sum->input(1));
    Value* const averaged = AveragedIn(sum->input(0));
    Node* const square = averaged ? NodeOf(averaged, "aten::pow") : nullptr;
    if (!epsilon || !square || square->input(0) != x || !IsNumber(square->input(1), 2)) continue;
    Value* const uncentered = CenteredIn(x);
    product->output()->replaceAllUsesWith(
        Insert(product, "lmfusion::normalize",
               {uncentered ? uncentered : x, c10::IValue(), c10::IValue(), c10::IValue(), *epsilon,
                uncentered != nullptr}));
    return true;
  }
  return false;
}

// Weights of one dimension that the model has.
class NormWeights {
 public:
  explicit NormWeights(Module& module) : module_(module) {}

  // Empty where it is none.
  at::Tensor Of(const Value* value) const {
    const std::optional<Attribute> attribute = AttributeOf(module_, value);
    if (!attribute || !attribute->value().isTensor()) return {};
    const at::Tensor weight = attribute->value().toTensor();
    const bool usable =
        weight.dim() == 1 && weight.scalar_type() == at::kFloat && weight.device().is_cpu();
    return usable ? weight : at::Tensor();
  }

  // A value that reads a weight, or one more than it, as Gemma's norms have: then as a new weight.
  Value* At(Node* user, Value* value) {
    Node* const sum = SumOf(value);
    const bool one_more = sum && IsNumber(sum->input(1), 1);
    const at::Tensor weight = Of(one_more ? sum->input(0) : value);
    if (!weight.defined()) return nullptr;
    if (!one_more) return value;
    const std::string name = "lmfusion_norm_" + std::to_string(++count_);
    module_.register_attribute(name, c10::TensorType::get(), at::add(weight, 1).detach());
    const torch::jit::WithInsertPoint here(user);
    return user->owningGraph()->insertGetAttr(user->owningGraph()->inputs().at(0), name);
  }

 private:
  Module& module_;
  int count_ = 0;
};

// aten::layer_norm(x, [n], weight, bias, epsilon, cudnn)
void FuseLayerNorm(Node* node, const NormWeights& weights) {
  if (node->kind() != c10::aten::layer_norm) return;
  const auto sizes = NumbersOf(node->input(1));
  const std::optional<double> epsilon = NumberOf(node->input(4));
  if (!sizes || sizes->size() != 1 || !epsilon) return;
  for (const int side : {2, 3}) {
    if (!IsNone(node->input(side)) && !weights.Of(node->input(side)).defined()) return;
  }
  node->output()->replaceAllUsesWith(
      Insert(node, "lmfusion::normalize",
             {node->input(0), node->input(2), node->input(3), c10::IValue(), *epsilon, true}));
}

// weight * norm
void FuseNormWeight(Node* product, NormWeights* weights) {
  if (product->kind() != c10::aten::mul) return;
  for (const int side : {0, 1}) {
    Node* const norm = NodeOf(product->input(side), "lmfusion::normalize");
    if (!norm || !IsUsedOnce(norm->output()) || !IsNone(norm->input(1)) ||
        !IsNone(norm->input(2))) {
      continue;
    }
    Value* const weight = weights->At(product, product->input(1 - side));
    if (!weight) continue;
    product->output()->replaceAllUsesWith(Insert(
        product, "lmfusion::normalize",
        {norm->input(0), weight, norm->input(2), norm->input(3), norm->input(4), norm->input(5)}));
    return;
  }
}

}  // namespace

void FuseNorms(Module& module) {
  NormWeights weights(module);
  ForEachNode(module, [&](Node* node) {
    if (!FuseNorm(node)) FuseLayerNorm(node, weights);
  });
  ForEachNode(module, [&](Node* node) { FuseNormWeight(node, &weights); });
}

}  // namespace lmfusion
