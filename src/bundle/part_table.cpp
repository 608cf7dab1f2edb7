#include "bundle/part_table.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "bundle/json_fields.h"

namespace lmfusion {
namespace {

constexpr char kPart[] = "lmfusion.parts.json";
constexpr int64_t kMostBytes = int64_t{1} << 46;
constexpr size_t kMostDimensions = 16;

// Bytes of a number of a tensor; 0: no such type.
int64_t BytesOf(const std::string& type) {
  static const std::map<std::string, int64_t> sizes = {
      {"float32", 4}, {"bfloat16", 2}, {"float16", 2}, {"float64", 8}, {"int64", 8},
      {"int32", 4},   {"int16", 2},    {"int8", 1},    {"uint8", 1},   {"bool", 1},
  };
  const auto found = sizes.find(type);
  return found == sizes.end() ? 0 : found->second;
}

// Numbers in a tensor; -1 where that is more than a file could hold.
int64_t CountOf(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    if (size == 0) return 0;
    if (count > kMostBytes / size) return -1;
    count *= size;
  }
  return count;
}

std::string Text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

void ReadTensor(const JsonFields& fields, StoredTensor* tensor) {
  tensor->type = fields.Text("type");
  tensor->shape = fields.Integers("shape", 0, kMostBytes);
  tensor->part = fields.Text("part");
  if (BytesOf(tensor->type) == 0) fields.Problem("type", "no type of numbers: " + tensor->type);
  if (tensor->shape.size() > kMostDimensions) fields.Problem("shape", "too many dimensions");
}

void CheckBlocks(const StoredTensor& tensor, const std::string& name, const std::string& type,
                 Problems* problems) {
  const bool blocks = tensor.type == "uint8" && tensor.shape.size() == 2 &&
                      CountOf(tensor.shape) > 0 && tensor.shape[1] % BytesOfBlock(type) == 0;
  if (blocks) return;
  problems->Add(kDescriptionName, "weight_types." + name,
                "the weight, " + tensor.type + " " + Text(tensor.shape) +
                    ", does not consist of blocks of \"" + type + "\"");
}

void CheckOutputMatrix(const StoredTensor& output, const ModelDescription& description,
                       Problems* problems) {
  if (output.shape.size() != 2) {
    problems->Add(kDescriptionName, "vocabulary_size",
                  "the tensor output_weight is no matrix: " + Text(output.shape));
    return;
  }
  const auto blocks = description.weight_types.find("output_weight");
  const int64_t columns = blocks == description.weight_types.end()
                              ? output.shape[1]
                              : output.shape[1] / BytesOfBlock(blocks->second) * 32;
  if (output.shape[0] != description.vocabulary_size) {
    problems->Add(kDescriptionName, "vocabulary_size",
                  std::to_string(description.vocabulary_size) + ", but output_weight has " +
                      std::to_string(output.shape[0]) + " rows");
  }
  if (columns != description.hidden_size) {
    problems->Add(kDescriptionName, "hidden_size",
                  std::to_string(description.hidden_size) + ", but output_weight has " +
                      std::to_string(columns) + " columns");
  }
}

}  // namespace

PartTable ParsePartTable(const std::string& json, Problems* problems) {
  PartTable table;
  const nlohmann::json file = JsonObject(json, kPart, problems);
  if (!file.is_object()) return table;
  const JsonFields fields(file, kPart, problems);
  for (const auto& [name, value] : fields.Object("parts").items()) {
    const JsonFields part(value, kPart, problems, "parts." + name + ".");
    StoredPart& stored = table.parts[name];
    stored.bytes = part.Integer("bytes", 0, kMostBytes);
    stored.crc32 =
        static_cast<uint32_t>(part.Integer("crc32", 0, std::numeric_limits<uint32_t>::max()));
    part.Hex("sha256", 64);
  }
  for (const auto& [name, value] : fields.Object("tensors").items()) {
    ReadTensor(JsonFields(value, kPart, problems, "tensors." + name + "."), &table.tensors[name]);
  }
  return table;
}

void CheckParts(const PartTable& table, const ModelFile& file, Problems* problems) {
  for (const auto& [name, stored] : table.parts) {
    const ModelFile::Entry* entry = file.Find(name);
    if (entry == nullptr) {
      problems->Add(name, "", "the part is missing");
    } else if (entry->bytes != stored.bytes) {
      problems->Add(name, "",
                    "it has " + std::to_string(entry->bytes) + " bytes, " +
                        std::to_string(stored.bytes) + " when it was exported");
    } else if (entry->crc32 != stored.crc32) {
      problems->Add(name, "", "it has another checksum than when it was exported");
    }
  }
  for (const ModelFile::Entry& entry : file.entries()) {
    if (entry.name == kPartTablePart || table.parts.count(entry.name) > 0) continue;
    problems->Add(entry.name, "", "the part was not there when the file was exported");
  }
}

void CheckTensors(const PartTable& table, const ModelDescription& description, Problems* problems) {
  for (const auto& [name, tensor] : table.tensors) {
    const int64_t count = CountOf(tensor.shape);
    const auto part = table.parts.find(tensor.part);
    if (count == 0 && tensor.part.empty()) continue;
    if (part == table.parts.end()) {
      problems->Add(kPart, "tensors." + name + ".part", "there is no part \"" + tensor.part + "\"");
    } else if (count < 0 ||
               count > part->second.bytes / std::max<int64_t>(BytesOf(tensor.type), 1)) {
      problems->Add(kPart, "tensors." + name + ".shape",
                    tensor.type + " " + Text(tensor.shape) + " does not fit the " +
                        std::to_string(part->second.bytes) + " bytes of " + tensor.part);
    }
  }
  for (const auto& [name, type] : description.weight_types) {
    const auto found = table.tensors.find(name);
    if (found == table.tensors.end()) {
      problems->Add(kDescriptionName, "weight_types." + name, "there is no such weight");
    } else {
      CheckBlocks(found->second, name, type, problems);
    }
  }
  if (description.plain) return;
  const auto output = table.tensors.find("output_weight");
  if (output == table.tensors.end()) {
    problems->Add(kPart, "tensors", "there is no output_weight");
  } else {
    CheckOutputMatrix(output->second, description, problems);
  }
}

}  // namespace lmfusion
