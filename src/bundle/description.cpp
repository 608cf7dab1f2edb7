#include "bundle/description.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "bundle/json_fields.h"

namespace lmfusion {
namespace {

// Beyond these no model is known, and the sizes computed of them fit 64 bits.
constexpr int64_t kMostLayers = 4096;
constexpr int64_t kMostHeads = int64_t{1} << 16;
constexpr int64_t kMostHeadDim = int64_t{1} << 16;
constexpr int64_t kMostHidden = int64_t{1} << 20;
constexpr int64_t kMostVocabulary = int64_t{1} << 24;
constexpr int64_t kMostPositions = std::numeric_limits<int32_t>::max();

struct Shape {
  const char* name;
  int64_t ModelDescription::*field;
  int64_t most;
};
constexpr Shape kShapes[] = {
    {"layers", &ModelDescription::layers, kMostLayers},
    {"q_heads", &ModelDescription::q_heads, kMostHeads},
    {"kv_heads", &ModelDescription::kv_heads, kMostHeads},
    {"head_dim", &ModelDescription::head_dim, kMostHeadDim},
    {"hidden_size", &ModelDescription::hidden_size, kMostHidden},
};

int64_t ReadFormat(const JsonFields& fields) {
  const int64_t format = fields.Integer("format", 1, std::numeric_limits<int32_t>::max());
  if (format != kModelFormat) {
    fields.Problem("format", std::to_string(format) + "; this version of lmfusion reads format " +
                                 std::to_string(kModelFormat) +
                                 ": export the model again (python -m lmfusion export), or update "
                                 "lmfusion");
  }
  return format;
}

void ReadShapes(const JsonFields& fields, ModelDescription* d) {
  const int64_t least = d->plain ? 0 : 1;  // a plain file says nothing of its inside
  for (const Shape& shape : kShapes) {
    d->*shape.field = fields.Integer(shape.name, least, shape.most);
  }
  if (!d->plain && d->q_heads % d->kv_heads != 0) {
    fields.Problem("q_heads", std::to_string(d->q_heads) + " is no multiple of kv_heads, " +
                                  std::to_string(d->kv_heads));
  }
  d->windows = fields.Integers("windows", 0, kMostPositions);
  if (static_cast<int64_t>(d->windows.size()) != d->layers) {
    fields.Problem("windows", "it has " + std::to_string(d->windows.size()) +
                                  " numbers; one a layer expected, " + std::to_string(d->layers));
  }
}

void ReadTokens(const JsonFields& fields, ModelDescription* d) {
  d->vocabulary_size = fields.Integer("vocabulary_size", 1, kMostVocabulary);
  d->max_positions = fields.Integer("max_positions", 0, kMostPositions);
  const int64_t last = d->vocabulary_size - 1;
  d->bos_token_id = static_cast<int32_t>(fields.Integer("bos_token_id", -1, last));
  d->eos_token_id = static_cast<int32_t>(fields.Integer("eos_token_id", -1, last));
  fields.OneOf("bos_source", {"none", "tokenizer", "config", "eos", "measured"});
  d->tokenizer_adds_bos = fields.Flag("tokenizer_adds_bos");
  if (d->tokenizer_adds_bos && d->bos_token_id < 0) {
    fields.Problem("tokenizer_adds_bos", "true, but there is no bos_token_id");
  }
  d->tokenizer = fields.OneOf("tokenizer", {"", "tokenizer.json", "tokenizer.model"});
}

void ReadWeights(const JsonFields& fields, ModelDescription* d) {
  fields.OneOf("dtype", {"float32"});
  for (const auto& [name, type] : fields.Object("weight_types").items()) {
    const std::string text = type.is_string() ? type.get<std::string>() : type.dump();
    if (BytesOfBlock(text) == 0) {
      fields.Problem("weight_types." + name, text + R"(; one of "q4_0", "q4_1", "q8_0" expected)");
    } else {
      d->weight_types[name] = text;
    }
  }
  fields.Counts("weight_counts");
  fields.Flag("tied_embeddings");
  fields.Hex("weights_sha256", 64);
}

void ReadOrigin(const JsonFields& fields, Problems* problems) {
  for (const char* name : {"source", "license", "torch", "transformers"}) fields.Text(name);
  const JsonFields parity(fields.Object("parity"), kDescriptionName, problems, "parity.");
  parity.Number("max_difference", false);
  parity.Number("tolerance", false);
  parity.Integer("tokens", 0, std::numeric_limits<int64_t>::max());
}

}  // namespace

ModelDescription ParseDescription(const std::string& json, Problems* problems) {
  ModelDescription d;
  d.json = json;
  const nlohmann::json file = JsonObject(json, kDescriptionName, problems);
  if (!file.is_object()) return d;
  const JsonFields fields(file, kDescriptionName, problems);
  d.format = ReadFormat(fields);
  if (d.format != kModelFormat) return d;
  d.plain = fields.OneOf("kind", {"tree", "plain"}) == "plain";
  d.architecture = fields.Text("architecture");
  ReadShapes(fields, &d);
  fields.Number("attention_softcap", false);
  d.logit_scale = fields.Number("logit_scale", true);
  d.logit_softcap = fields.Number("logit_softcap", false);
  ReadTokens(fields, &d);
  ReadWeights(fields, &d);
  ReadOrigin(fields, problems);
  return d;
}

ModelDescription DescriptionOfAnyTorchScript() {
  ModelDescription d;
  d.plain = true;
  d.json = "{}";
  return d;
}

int64_t KvBytes(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t kv_number_bytes) {
  return 2 * layers * kv_heads * head_dim * kv_number_bytes;
}

int64_t SlotBytes(const ModelDescription& description, int64_t kv_number_bytes,
                  int64_t hidden_number_bytes) {
  return KvBytes(description.layers, description.kv_heads, description.head_dim, kv_number_bytes) +
         description.hidden_size * hidden_number_bytes;
}

int64_t BytesOfBlock(const std::string& type) {
  if (type == "q4_0") return 18;
  if (type == "q4_1") return 20;
  return type == "q8_0" ? 34 : 0;
}

}  // namespace lmfusion
