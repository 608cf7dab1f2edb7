#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bundle/problems.h"

namespace lmfusion {

constexpr int kModelFormat = 3;
constexpr char kDescriptionPart[] = "extra/lmfusion.json";
constexpr char kDescriptionName[] = "lmfusion.json";  // of the same, in messages

// lmfusion.json of a model file; docs/export.md lists the fields.
struct ModelDescription {
  int64_t format = 0;  // kModelFormat where the rest was read
  bool plain = false;  // a TorchScript module (ids, mask) -> logits, no tree attention
  std::string architecture;
  int64_t layers = 0, q_heads = 0, kv_heads = 0, head_dim = 0, hidden_size = 0;
  std::vector<int64_t> windows;               // one a layer, 0: none; the graph has them built in
  int64_t vocabulary_size = 0;                // 0: not known before a plain model runs
  double logit_scale = 1, logit_softcap = 0;  // of the output layer, see ops/output_ops.h
  int64_t max_positions = 0;                  // 0: no limit known
  int32_t bos_token_id = -1, eos_token_id = -1;
  bool tokenizer_adds_bos = false;
  std::string tokenizer;                            // "tokenizer.json", "tokenizer.model" or ""
  std::map<std::string, std::string> weight_types;  // attribute path -> type of its blocks
  std::string json;                                 // all of it
  std::string file;                                 // that it is from, for messages
};

// Reads lmfusion.json, field by field, and adds what is wrong to `problems`; the result makes sense
// only where there are none. Another format is the one problem.
ModelDescription ParseDescription(const std::string& json, Problems* problems);

// A TorchScript file of another origin is taken for a plain causal language model.
ModelDescription DescriptionOfAnyTorchScript();

// Bytes that a cache keeps for one token: keys and values of all layers, then the final hidden
// state. Of one number of either: kv_number_bytes, hidden_number_bytes.
int64_t KvBytes(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t kv_number_bytes);
int64_t SlotBytes(const ModelDescription& description, int64_t kv_number_bytes,
                  int64_t hidden_number_bytes);

// Bytes of a block of 32 weights, as GGUF files write them: "q4_0", "q4_1", "q8_0"; 0: no such
// type.
int64_t BytesOfBlock(const std::string& type);

}  // namespace lmfusion
