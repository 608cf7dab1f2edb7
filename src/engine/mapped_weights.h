#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/jit/api/module.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>

#include "bundle/model_file.h"

namespace lmfusion {

// Note [Mapped weights]
// Weights are packed for the products, so what the file stores is needed for a moment only, matrix
// by matrix. Torch reads the whole file first, which would be a second copy of all weights. So its
// reads of large weights are not done: the memory that it took for them is never touched, and gets
// exchanged for the pages of the file, from which the system reads what is packed. Pages are given
// back with the last tensor that reads them. Of the file alone: no copy is private memory.
// A file allows that where its weights are aligned, as torch writes them. Where a read that was not
// done did not turn out to be the whole of one weight, the file is loaded again, and read.
class MappedWeights {
 public:
  explicit MappedWeights(const ModelFile& file);

  // Whether a read of the file, which torch asks for, looks like the whole of a large weight. Then
  // it need not be done.
  bool Defer(uint64_t position, void* bytes, size_t count);

  // Gives the tensors of the module that was loaded what was not read. False where that is not
  // possible; the module must not be used then.
  bool PutInto(const torch::jit::Module& module);

 private:
  struct Part {
    uint64_t position;
    size_t count;
  };

  const ModelFile& file_;
  std::set<size_t> sizes_;                // of the parts that are large weights
  std::map<const void*, Part> deferred_;  // by where torch wants the bytes
  bool clear_ = true;                     // no address was used twice
};

// Whether a tensor is read from the pages of a file.
bool IsMapped(const at::Tensor& tensor);

}  // namespace lmfusion
