#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bundle/description.h"
#include "bundle/model_file.h"
#include "bundle/problems.h"

namespace lmfusion {

constexpr char kPartTablePart[] = "extra/lmfusion.parts.json";

// One part of the archive as the exporter wrote it.
struct StoredPart {
  int64_t bytes = 0;
  uint32_t crc32 = 0;
};

// One tensor of the module.
struct StoredTensor {
  std::string type;  // as torch names it: "float32", "bfloat16", "uint8", "int64"
  std::vector<int64_t> shape;
  std::string part;  // that holds its numbers
};

// lmfusion.parts.json: all parts of the file but this one, and the tensors in them.
struct PartTable {
  std::map<std::string, StoredPart> parts;      // by name
  std::map<std::string, StoredTensor> tensors;  // by attribute path
};
PartTable ParsePartTable(const std::string& json, Problems* problems);

// Whether the file has exactly the parts of the table, of their sizes and checksums; its own
// directory is believed for them, ModelFile::CheckContent reads them.
void CheckParts(const PartTable& table, const ModelFile& file, Problems* problems);
// Whether the tensors fit their parts and the description: output matrix and blocks.
void CheckTensors(const PartTable& table, const ModelDescription& description, Problems* problems);

}  // namespace lmfusion
