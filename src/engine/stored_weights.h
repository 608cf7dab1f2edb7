#pragma once

#include <torch/csrc/jit/api/module.h>

#include <map>
#include <string>
#include <vector>

#include "engine/graph_nodes.h"
#include "ops/packed_linear.h"

namespace lmfusion {

// The tensors of a loaded tree module as its file stores them: matrices in bfloat16 where that
// loses nothing, or as blocks of a GGUF file (docs/export.md). The graph computes in float32: what
// is not packed must be widened before it runs.
class StoredWeights {
 public:
  // `block_types`: attribute path -> type of its blocks. Throws ModelFileError, which names `path`,
  // where there is no such type or attribute.
  StoredWeights(const torch::jit::Module& module,
                const std::map<std::string, std::string>& block_types, const std::string& path);

  // A weight matrix [out, in] on the CPU as it is stored, if the attribute is one. If it is
  // deferred (deferred_weights.h), its reader throws ModelFileError.
  std::optional<WeightRows> Matrix(const std::optional<Attribute>& attribute) const;

  // Empties this attribute, and all that share its memory.
  void Release(const Attribute& attribute);

  // Gives every matrix that was not released its float32 weights; tied ones stay tied. Nothing
  // reads the file any more after that. Throws ModelFileError: it cannot be read.
  void Widen();

  // What is still held; memory that attributes share is counted once.
  int64_t bytes() const;

 private:
  WeightType TypeOf(const at::Tensor& tensor) const;

  std::vector<Attribute> tensors_;            // all attributes that are tensors
  std::map<const void*, WeightType> blocks_;  // by their memory
};

}  // namespace lmfusion
