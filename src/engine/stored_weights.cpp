#include "engine/stored_weights.h"

#include <ATen/ATen.h>

#include <set>
#include <stdexcept>
#include <utility>

#include "engine/deferred_weights.h"
#include "engine/module_tensors.h"
#include "lmfusion/errors.h"
#include "ops/narrow_weights.h"
#include "ops/pack_weights.h"

namespace lmfusion {
namespace {

at::Tensor TensorIn(const Attribute& attribute) { return attribute.value().toTensor(); }

const void* MemoryOf(const at::Tensor& tensor) { return tensor.storage().data(); }

WeightType BlockType(const std::string& name) {
  const WeightType type = WeightTypeByName(name);
  if (type == WeightType::kFloat) throw std::invalid_argument("\"float\" is no type of blocks");
  return type;
}

}  // namespace

StoredWeights::StoredWeights(const torch::jit::Module& module,
                             const std::map<std::string, std::string>& block_types,
                             const std::string& path) {
  const auto refuse = [&path](const std::string& name, const std::string& reason) {
    throw ModelFileError(path + ": weight_types of its lmfusion.json: " + name + ": " + reason);
  };
  std::map<std::string, at::Tensor> by_path;
  std::set<const void*> seen;
  ForEachTensor(module._ivalue(), "", &seen, [&](const std::string& name, Attribute attribute) {
    by_path.emplace(name, TensorIn(attribute));
    tensors_.push_back(std::move(attribute));
  });
  for (const auto& [name, type_name] : block_types) {
    const auto found = by_path.find(name);
    if (found == by_path.end()) refuse(name, "there is no such weight");
    WeightType type = WeightType::kFloat;
    try {
      type = BlockType(type_name);
    } catch (const std::invalid_argument& error) {
      refuse(name, error.what());
    }
    const at::Tensor& blocks = found->second;
    if (blocks.dim() != 2 || blocks.scalar_type() != at::kByte || blocks.numel() == 0 ||
        blocks.size(1) % BlockBytes(type) != 0) {
      refuse(name, "the weight does not consist of blocks of \"" + type_name + "\"");
    }
    blocks_.emplace(MemoryOf(blocks), type);
  }
}

WeightType StoredWeights::TypeOf(const at::Tensor& tensor) const {
  const auto found = blocks_.find(MemoryOf(tensor));
  return found == blocks_.end() ? WeightType::kFloat : found->second;
}

std::optional<WeightRows> StoredWeights::Matrix(const std::optional<Attribute>& attribute) const {
  if (!attribute || !attribute->value().isTensor()) return std::nullopt;
  const at::Tensor tensor = TensorIn(*attribute);
  const WeightType type = TypeOf(tensor);
  const bool known = type != WeightType::kFloat || tensor.scalar_type() == at::kFloat ||
                     tensor.scalar_type() == at::kBFloat16;
  if (!known || tensor.dim() != 2 || !tensor.device().is_cpu() || tensor.numel() == 0) {
    return std::nullopt;
  }
  if (!tensor.is_contiguous()) ReadDeferred(tensor);
  return WeightRows{tensor, type, ReaderOf(tensor)};
}

void StoredWeights::Release(const Attribute& attribute) {
  const at::Tensor released = TensorIn(attribute);
  for (const Attribute& other : tensors_) {
    const at::Tensor tensor = TensorIn(other);
    if (MemoryOf(tensor) == MemoryOf(released)) {
      other.owner->setAttr(other.name, at::empty({0}, tensor.options()));
    }
  }
  blocks_.erase(MemoryOf(released));  // its address may be taken by other weights
}

void StoredWeights::Widen() {
  std::map<std::pair<const void*, std::vector<int64_t>>, at::Tensor> widened;
  for (const Attribute& attribute : tensors_) {
    const at::Tensor tensor = TensorIn(attribute);
    const WeightType type = TypeOf(tensor);
    ReadDeferred(tensor);
    if (type == WeightType::kFloat && tensor.scalar_type() != at::kBFloat16) continue;
    at::Tensor& wide = widened[{MemoryOf(tensor), tensor.sizes().vec()}];
    if (!wide.defined()) {
      wide = type == WeightType::kFloat ? tensor.to(at::kFloat)
                                        : Narrowed({tensor, type}, Compute::kFloat32).values;
    }
    attribute.owner->setAttr(attribute.name, wide);
  }
  blocks_.clear();
}

int64_t StoredWeights::bytes() const {
  std::map<const void*, int64_t> sizes;
  for (const Attribute& attribute : tensors_) {
    const at::Tensor tensor = TensorIn(attribute);
    sizes[MemoryOf(tensor)] = static_cast<int64_t>(tensor.storage().nbytes());
  }
  int64_t sum = 0;
  for (const auto& [memory, size] : sizes) sum += size;
  return sum;
}

}  // namespace lmfusion
