#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>

#include "bundle/bundle.h"
#include "edits.h"
#include "toy_model_file.h"

// Any bytes are a model file, or have problems that can be told. Inputs are edits of a small file:
// of its description or its table, whose checksums are then made to fit, or of the whole archive.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lmfusion;
  if (size == 0) return 0;
  const int what = *data % 3;
  Parts parts = AllParts();
  if (what == 0) {
    std::string& description = parts["extra/lmfusion.json"];
    description = Edited(description, data + 1, size - 1);
  }
  nlohmann::json table = Table(parts);
  if (what == 1) {
    const std::string edited = Edited(Tensors().dump(), data + 1, size - 1);
    const auto tensors = nlohmann::json::parse(edited, nullptr, false);
    if (tensors.is_discarded()) return 0;
    table = Table(parts, tensors);
  }
  const std::string path = Write(parts, table);
  if (what == 2) {
    std::ifstream in(path, std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(in), {}};
    std::ofstream(path, std::ios::binary | std::ios::trunc) << Edited(content, data + 1, size - 1);
  }
  VerifyModelFile(path);
  return 0;
}
