#include "engine/loaded_module.h"

#include <c10/core/ScalarType.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <torch/csrc/jit/serialization/import.h>

#include <memory>
#include <set>

#include "engine/deferred_weights.h"
#include "engine/torch_errors.h"
#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

// Torch reads through the file that was checked.
class Adapter final : public caffe2::serialize::ReadAdapterInterface {
 public:
  // deferred: null where all is read.
  Adapter(const ModelFile& file, DeferredWeights* deferred) : file_(file), deferred_(deferred) {}
  size_t size() const override { return file_.size(); }
  size_t read(uint64_t position, void* bytes, size_t count, const char*) const override {
    if (deferred_ != nullptr && deferred_->Defer(position, bytes, count)) return count;
    return file_.ReadAt(position, bytes, count);
  }

 private:
  const ModelFile& file_;
  DeferredWeights* deferred_;
};

torch::jit::Module Load(const ModelFile& file, DeferredWeights* deferred) {
  try {
    torch::jit::Module module =
        torch::jit::load(std::make_shared<Adapter>(file, deferred), at::kCPU);
    module.eval();
    return module;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw ModelFileError(file.path() +
                         " is not a TorchScript file that can be loaded: " + TextOf(error));
  }
}

torch::jit::Module LoadDeferred(const ModelFile& file) {
  DeferredWeights deferred(file);
  torch::jit::Module module = Load(file, &deferred);
  return deferred.PutInto(module) ? module : Load(file, nullptr);
}

void CheckTensor(const at::Tensor& tensor, const std::string& name, const PartTable& table,
                 Problems* problems) {
  const auto found = table.tensors.find(name);
  if (found == table.tensors.end()) {
    problems->Add("lmfusion.parts.json", "tensors." + name, "it is missing");
    return;
  }
  const bool same = found->second.type == c10::getDtypeNames(tensor.scalar_type()).first &&
                    tensor.sizes() == c10::IntArrayRef(found->second.shape);
  if (!same) {
    problems->Add("lmfusion.parts.json", "tensors." + name, "the module has another tensor there");
  }
}

void CheckModule(const torch::jit::Module& module, const PartTable& table, Problems* problems) {
  std::set<std::string> seen;
  const auto check = [&](const auto& tensors) {
    for (const auto& named : tensors) {
      CheckTensor(named.value, named.name, table, problems);
      seen.insert(named.name);
    }
  };
  check(module.named_parameters());
  check(module.named_buffers());
  for (const auto& [name, tensor] : table.tensors) {
    if (seen.count(name) > 0) continue;
    problems->Add("lmfusion.parts.json", "tensors." + name, "the module has no such tensor");
  }
}

}  // namespace

torch::jit::Module LoadModule(const ModelFile& file, const PartTable& table, WeightMemory memory) {
  torch::jit::Module module =
      memory == WeightMemory::kDeferred ? LoadDeferred(file) : Load(file, nullptr);
  if (table.parts.empty()) return module;  // of another origin
  Problems problems;
  CheckModule(module, table, &problems);
  problems.ThrowIfAny(file.path());
  return module;
}

}  // namespace lmfusion
