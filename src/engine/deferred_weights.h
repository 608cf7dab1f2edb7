#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/jit/api/module.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>

#include "bundle/model_file.h"
#include "kernels/linear/weight_matrix.h"

namespace lmfusion {

// Note [Deferred weights]
// Weights are packed for the products, so what the file stores is needed for a moment only, panel
// by panel. Torch reads the whole file first, which would be a second copy of all weights. So its
// reads of large weights are not done: the memory that it took for them is never touched, and says
// only which weight a tensor is. Packing reads the rows of a panel from the file. The file is read,
// never mapped: whoever shortens it meanwhile gets an error, where pages of a file that are gone
// would end the process. A file allows that where its weights are aligned, as torch writes them.
// Where a read that was not done did not turn out to be the whole of one weight, the file is loaded
// again, and read.
class DeferredWeights {
 public:
  explicit DeferredWeights(const ModelFile& file);

  // Whether a read of the file, which torch asks for, looks like the whole of a large weight. Then
  // it need not be done.
  bool Defer(uint64_t position, void* bytes, size_t count);

  // Marks the tensors of the module that was loaded whose bytes were not read: matrices, which need
  // the file as long as they are marked; others are read now. False where that is not possible; the
  // module must not be used then. Throws ModelFileError.
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

// Null where the content of a tensor is in memory, else what reads any part of it, which throws
// ModelFileError: the file has become shorter, or cannot be read. For as long as the tensor lives.
WeightReader ReaderOf(const at::Tensor& tensor);

// Reads what a tensor holds, where that was not done yet. Throws ModelFileError.
void ReadDeferred(const at::Tensor& tensor);

}  // namespace lmfusion
