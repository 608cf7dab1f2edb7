#pragma once

#include <string>
#include <vector>

#include "bundle/description.h"
#include "bundle/model_file.h"
#include "bundle/part_table.h"
#include "bundle/problems.h"

namespace lmfusion {

// What a model file holds beside its module.
struct Bundle {
  ModelDescription description;
  PartTable table;        // empty for a TorchScript file of another origin
  std::string tokenizer;  // content of the part that description.tokenizer names
  std::string truecaser;  // content; empty where there is none
};

// Reads a model file without running any of its code, and checks all of it: every field, fields
// against each other and against the shapes of the tensors, and every part's length and checksum.
// Adds what is wrong to `problems`, and reads on where it can; the result makes sense only where
// there are none. Throws ModelFileError where a part cannot be read.
Bundle ReadBundle(const ModelFile& file, Problems* problems);

// The same; throws ModelFileError with what is wrong.
Bundle ReadBundle(const ModelFile& file);

// The description alone, checked as above except for the contents of other parts. Throws
// ModelFileError, also where the file has none.
ModelDescription ReadDescription(const ModelFile& file);

// Everything that is wrong with a file, a line each: "part: field: what". Empty: nothing.
std::vector<std::string> VerifyModelFile(const std::string& path);

}  // namespace lmfusion
