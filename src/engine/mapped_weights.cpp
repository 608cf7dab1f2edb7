#include "engine/mapped_weights.h"

#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "engine/module_tensors.h"

namespace lmfusion {
namespace {

constexpr int64_t kLeastBytes = int64_t{1} << 20;  // smaller weights are read
constexpr uint64_t kAlignment = 64;                // bytes, of torch's tensors

// A part of a mapped file that a tensor's storage holds.
struct Region {
  std::shared_ptr<uint8_t> file;
  uint8_t* begin;
  size_t bytes;
};

// Gives the pages back, but those at the ends, which hold something else, too.
void GiveBack(void* context) {
  const std::unique_ptr<Region> region(static_cast<Region*>(context));
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t before = (page - reinterpret_cast<uintptr_t>(region->begin) % page) % page;
  if (region->bytes < before) return;
  madvise(region->begin + before, (region->bytes - before) / page * page, MADV_DONTNEED);
}

}  // namespace

MappedWeights::MappedWeights(const ModelFile& file) : file_(file) {
  for (const ModelFile::Entry& entry : file.entries()) {
    const bool weight = !entry.compressed && entry.name.rfind("data/", 0) == 0;
    if (weight && entry.bytes >= kLeastBytes) sizes_.insert(static_cast<size_t>(entry.bytes));
  }
}

bool MappedWeights::Defer(uint64_t position, void* bytes, size_t count) {
  const bool whole = position % kAlignment == 0 && sizes_.count(count) > 0 &&
                     position <= file_.size() && count <= file_.size() - position;
  if (whole) clear_ = deferred_.emplace(bytes, Part{position, count}).second && clear_;
  return whole;
}

bool MappedWeights::PutInto(const torch::jit::Module& module) {
  if (deferred_.empty()) return true;
  const std::shared_ptr<uint8_t> file = file_.Map();
  if (!clear_ || file == nullptr) return false;
  std::set<const void*> seen;
  ForEachTensor(module._ivalue(), "", &seen, [&](const std::string&, const Attribute& attribute) {
    const at::Tensor tensor = attribute.value().toTensor();
    const auto found = deferred_.find(tensor.storage().data());
    if (found == deferred_.end() || tensor.storage().nbytes() != found->second.count) return;
    auto region = std::make_unique<Region>(
        Region{file, file.get() + found->second.position, found->second.count});
    uint8_t* const begin = region->begin;
    tensor.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(
        at::DataPtr(begin, region.release(), &GiveBack, at::kCPU));
    deferred_.erase(found);
  });
  return deferred_.empty();
}

bool IsMapped(const at::Tensor& tensor) {
  return tensor.storage().data_ptr().get_deleter() == &GiveBack;
}

}  // namespace lmfusion
