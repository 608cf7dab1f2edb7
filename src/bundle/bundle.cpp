#include "bundle/bundle.h"

#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

// Bytes that are read of a part at most.
constexpr int64_t kMostJson = int64_t{6} << 20;
constexpr int64_t kMostText = int64_t{1} << 30;  // tokenizers and truecasers

constexpr char kTruecaserPart[] = "extra/truecaser";

// Everything but the contents of the other parts.
Bundle ReadTables(const ModelFile& file, Problems* problems) {
  Bundle bundle;
  bundle.description = ParseDescription(file.Read(kDescriptionPart, kMostJson), problems);
  if (bundle.description.format != kModelFormat) return bundle;
  if (file.Find(kPartTablePart) == nullptr) {
    problems->Add("lmfusion.parts.json", "", "the part is missing");
    return bundle;
  }
  bundle.table = ParsePartTable(file.Read(kPartTablePart, kMostJson), problems);
  CheckParts(bundle.table, file, problems);
  CheckTensors(bundle.table, bundle.description, problems);
  const std::string& tokenizer = bundle.description.tokenizer;
  if (!tokenizer.empty() && file.Find("extra/" + tokenizer) == nullptr) {
    problems->Add(kDescriptionName, "tokenizer", "the file has no part extra/" + tokenizer);
  }
  return bundle;
}

}  // namespace

Bundle ReadBundle(const ModelFile& file, Problems* problems) {
  Bundle bundle;
  if (file.Find(kDescriptionPart) == nullptr) {
    bundle.description = DescriptionOfAnyTorchScript();
  } else {
    bundle = ReadTables(file, problems);
    if (bundle.description.format != kModelFormat) return bundle;  // other parts, other rules
  }
  bundle.description.file = file.path();
  file.CheckContent(problems);
  if (!problems->empty()) return bundle;
  const std::string& tokenizer = bundle.description.tokenizer;
  if (!tokenizer.empty()) bundle.tokenizer = file.Read("extra/" + tokenizer, kMostText);
  bundle.truecaser = file.Read(kTruecaserPart, kMostText);
  return bundle;
}

Bundle ReadBundle(const ModelFile& file) {
  Problems problems;
  Bundle bundle = ReadBundle(file, &problems);
  problems.ThrowIfAny(file.path());
  return bundle;
}

ModelDescription ReadDescription(const ModelFile& file) {
  if (file.Find(kDescriptionPart) == nullptr) {
    throw ModelFileError(file.path() +
                         " holds no lmfusion.json. A plain TorchScript model has none; it is "
                         "scored without a cache");
  }
  Problems problems;
  ModelDescription description = ReadTables(file, &problems).description;
  problems.ThrowIfAny(file.path());
  return description;
}

std::vector<std::string> VerifyModelFile(const std::string& path) {
  Problems problems;
  try {
    const ModelFile file(path);
    ReadBundle(file, &problems);
  } catch (const ModelFileError& error) {
    std::vector<std::string> lines = problems.lines();
    lines.emplace_back(error.what());
    return lines;
  }
  return problems.lines();
}

}  // namespace lmfusion
