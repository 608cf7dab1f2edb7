#include "engine/deferred_weights.h"

#include <memory>
#include <string>
#include <utility>

#include "engine/module_tensors.h"

namespace lmfusion {
namespace {

constexpr int64_t kLeastBytes = int64_t{1} << 20;  // smaller weights are read
constexpr uint64_t kAlignment = 64;                // bytes, of torch's tensors

// The memory of a weight, and where its content is in the file.
struct Deferred {
  at::DataPtr memory;     // torch's
  const ModelFile* file;  // null when it has been read
  uint64_t position;
  size_t bytes;
};

void Free(void* deferred) { delete static_cast<Deferred*>(deferred); }

// Null where all of it was always in memory.
Deferred* DeferredOf(const at::Tensor& tensor) {
  const at::DataPtr& memory = tensor.storage().data_ptr();
  return memory.get_deleter() == &Free ? static_cast<Deferred*>(memory.get_context()) : nullptr;
}

}  // namespace

DeferredWeights::DeferredWeights(const ModelFile& file) : file_(file) {
  for (const ModelFile::Entry& entry : file.entries()) {
    const bool weight = !entry.compressed && entry.name.rfind("data/", 0) == 0;
    if (weight && entry.bytes >= kLeastBytes) sizes_.insert(static_cast<size_t>(entry.bytes));
  }
}

bool DeferredWeights::Defer(uint64_t position, void* bytes, size_t count) {
  const bool whole = position % kAlignment == 0 && sizes_.count(count) > 0 &&
                     position <= file_.size() && count <= file_.size() - position;
  if (whole) clear_ = deferred_.emplace(bytes, Part{position, count}).second && clear_;
  return whole;
}

bool DeferredWeights::PutInto(const torch::jit::Module& module) {
  if (!clear_) return false;
  std::set<const void*> seen;
  ForEachTensor(module._ivalue(), "", &seen, [&](const std::string&, const Attribute& attribute) {
    const at::Tensor tensor = attribute.value().toTensor();
    const auto found = deferred_.find(tensor.storage().data());
    if (found != deferred_.end() && tensor.storage().nbytes() == found->second.count) {
      const auto [position, count] = found->second;
      auto deferred = std::make_unique<Deferred>();
      deferred->file = &file_;
      deferred->position = position;
      deferred->bytes = count;
      at::StorageImpl* const storage = tensor.storage().unsafeGetStorageImpl();
      void* const address = storage->mutable_data();
      deferred->memory = std::move(storage->_mutable_data_ptr_no_checks());
      storage->set_data_ptr_noswap(at::DataPtr(address, deferred.release(), &Free, at::kCPU));
      deferred_.erase(found);
    }
    if (tensor.dim() != 2) ReadDeferred(tensor);
  });
  return deferred_.empty();
}

WeightReader ReaderOf(const at::Tensor& tensor) {
  const Deferred* const deferred = DeferredOf(tensor);
  if (deferred == nullptr || deferred->file == nullptr) return nullptr;
  return [deferred](const void* from, int64_t bytes, void* to) {
    const auto* const begin = static_cast<const uint8_t*>(deferred->memory.get());
    const auto offset = static_cast<uint64_t>(static_cast<const uint8_t*>(from) - begin);
    deferred->file->ReadWhole(deferred->position + offset, to, static_cast<size_t>(bytes));
  };
}

void ReadDeferred(const at::Tensor& tensor) {
  const WeightReader read = ReaderOf(tensor);
  if (!read) return;
  Deferred* const deferred = DeferredOf(tensor);
  void* const memory = deferred->memory.get();
  read(memory, static_cast<int64_t>(deferred->bytes), memory);
  deferred->file = nullptr;
}

}  // namespace lmfusion
