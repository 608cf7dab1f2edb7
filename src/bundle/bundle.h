#pragma once

#include <string>

#include "tree/causal_lm.h"

namespace lmfusion {

// The extra files of a model file, and what its lmfusion.json says.
struct Bundle {
  ModelDescription description;
  std::string tokenizer;  // content of the file that description.tokenizer names
  std::string truecaser;  // content; empty where there is none
};

// `json`: the content of lmfusion.json; empty for a TorchScript file of another origin, which is
// taken to be a plain causal language model. Throws ModelFileError.
ModelDescription ParseDescription(const std::string& json, const std::string& path);

}  // namespace lmfusion
