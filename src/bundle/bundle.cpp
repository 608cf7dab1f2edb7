#include "bundle/bundle.h"

#include <nlohmann/json.hpp>

#include "lmfusion/errors.h"

namespace lmfusion {
namespace {

constexpr int kFormat = 2;

}  // namespace

ModelDescription ParseDescription(const std::string& json, const std::string& path) {
  ModelDescription d;
  d.json = json;
  if (json.empty()) {
    d.plain = true;
    d.json = "{}";
    return d;
  }
  try {
    const auto file = nlohmann::json::parse(json);
    const int format = file.at("format").get<int>();
    if (format != kFormat) {
      throw ModelFileError(path + " has format " + std::to_string(format) +
                           ", this version of lmfusion reads format " + std::to_string(kFormat) +
                           "; export the model again, or update lmfusion");
    }
    d.plain = file.at("kind").get<std::string>() == "plain";
    d.architecture = file.at("architecture").get<std::string>();
    d.layers = file.at("layers").get<int64_t>();
    d.q_heads = file.at("q_heads").get<int64_t>();
    d.kv_heads = file.at("kv_heads").get<int64_t>();
    d.head_dim = file.at("head_dim").get<int64_t>();
    d.hidden_size = file.at("hidden_size").get<int64_t>();
    d.windows = file.at("windows").get<std::vector<int64_t>>();
    d.logit_scale = file.at("logit_scale").get<double>();
    d.logit_softcap = file.at("logit_softcap").get<double>();
    d.vocabulary_size = file.at("vocabulary_size").get<int64_t>();
    d.max_positions = file.at("max_positions").get<int64_t>();
    d.bos_token_id = file.at("bos_token_id").get<int32_t>();
    d.tokenizer_adds_bos = file.at("tokenizer_adds_bos").get<bool>();
    d.eos_token_id = file.at("eos_token_id").get<int32_t>();
    d.weight_types = file.at("weight_types").get<std::map<std::string, std::string>>();
    d.tokenizer = file.at("tokenizer").get<std::string>();
  } catch (const nlohmann::json::exception& error) {
    throw ModelFileError(path + ": its lmfusion.json cannot be read: " + error.what());
  }
  return d;
}

}  // namespace lmfusion
