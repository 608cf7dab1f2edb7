#pragma once

#include <unistd.h>
#include <zip.h>
#include <zlib.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace lmfusion {

using nlohmann::json;

// A model file of a toy: right as far as it can be checked without torch.
inline json Description() {
  return json::parse(R"({
    "format": 3, "kind": "tree", "architecture": "Toy", "layers": 2, "q_heads": 4, "kv_heads": 2,
    "head_dim": 16, "hidden_size": 64, "windows": [0, 7], "attention_softcap": 0.0,
    "logit_softcap": 30.0, "logit_scale": 0.5, "vocabulary_size": 50, "max_positions": 128,
    "bos_token_id": 1, "bos_source": "config", "tokenizer_adds_bos": false, "eos_token_id": 49,
    "tokenizer": "", "weight_types": {"mlp": "q8_0"}, "weight_counts": {"float32": 3200},
    "tied_embeddings": false, "source": "", "license": "", "dtype": "float32", "torch": "2",
    "transformers": "5", "parity": {"max_difference": 1e-6, "tokens": 12, "tolerance": 1e-4},
    "weights_sha256": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  })");
}

inline json Tensors() {
  return json::parse(R"({
    "output_weight": {"type": "float32", "shape": [50, 64], "part": "data/0"},
    "mlp": {"type": "uint8", "shape": [10, 68], "part": "data/1"},
    "nothing": {"type": "float32", "shape": [0], "part": ""}
  })");
}

using Parts = std::map<std::string, std::string>;

inline Parts AllParts() {
  return {{"data/0", std::string(50 * 64 * 4, 'w')},
          {"data/1", std::string(680, 'b')},
          {"code/module.py", "pass"},
          {"extra/lmfusion.json", Description().dump()}};
}

inline json Table(const Parts& parts, const json& tensors = Tensors()) {
  json table = {{"parts", json::object()}, {"tensors", tensors}};
  for (const auto& [name, content] : parts) {
    const auto sum =
        crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size()));
    table["parts"][name] = {
        {"bytes", content.size()}, {"crc32", sum}, {"sha256", std::string(64, '0')}};
  }
  return table;
}

// Writes an archive, returns its path.
inline std::string Write(Parts parts, const json& table, const std::string& folder = "toy/") {
  if (!table.is_null()) parts["extra/lmfusion.parts.json"] = table.dump();
  const std::string path =
      std::filesystem::temp_directory_path() / ("toy_" + std::to_string(getpid()) + ".lmf");
  std::remove(path.c_str());
  zip_t* archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, nullptr);
  for (const auto& [name, content] : parts) {
    zip_source_t* source = zip_source_buffer(archive, content.data(), content.size(), 0);
    const zip_int64_t index = zip_file_add(archive, (folder + name).c_str(), source, 0);
    zip_set_file_compression(archive, index, ZIP_CM_STORE, 0);
  }
  zip_close(archive);
  return path;
}

}  // namespace lmfusion
