#include "text/tokenizers/tokenizer_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "lmfusion/errors.h"
#include "text/tokenizers/pattern_syntax.h"

namespace lmfusion {
namespace {

using Json = nlohmann::json;

// ByteLevel's built-in pattern (GPT-2).
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

[[noreturn]] void Refuse(const std::string& what) {
  throw TokenizerError("tokenizer.json: " + what + " is not implemented" + kTokenizerWayOut);
}

// object[key], or `otherwise` where it is missing or null.
template <typename T>
T Get(const Json& object, const char* key, T otherwise) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? otherwise : found->template get<T>();
}

std::string Type(const Json& part) { return Get<std::string>(part, "type", ""); }

Bpe::Definition ReadModel(const Json& model) {
  const std::string type = Get<std::string>(model, "type", model.contains("merges") ? "BPE" : "");
  if (type != "BPE") Refuse("the model \"" + type + "\" (only BPE is)");
  if (Get(model, "dropout", 0.0) != 0.0) Refuse("the model's dropout");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!Get<std::string>(model, key, "").empty()) Refuse("the model's " + std::string(key));
  }
  Bpe::Definition bpe;
  for (const auto& [piece, id] : model.at("vocab").items()) {
    if (id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX / 2) {
      throw TokenizerError("tokenizer.json: the piece \"" + piece + "\" has the id " + id.dump());
    }
    bpe.vocabulary.emplace(piece, id.get<int32_t>());
  }
  for (const Json& merge : model.at("merges")) {
    if (merge.is_array() && merge.size() == 2) {
      bpe.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      throw TokenizerError("tokenizer.json: the merge \"" + text + "\" is not a pair");
    }
    bpe.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  bpe.unknown_token = Get<std::string>(model, "unk_token", "");
  bpe.fuse_unknown = Get(model, "fuse_unk", false);
  bpe.byte_fallback = Get(model, "byte_fallback", false);
  bpe.whole_words = Get(model, "ignore_merges", false);
  return bpe;
}

std::vector<AddedToken> ReadAddedTokens(const Json& tokens) {
  std::vector<AddedToken> added;
  for (const Json& token : tokens) {
    AddedToken one;
    const auto id = token.at("id").get<int64_t>();
    if (id < 0 || id > INT32_MAX / 2) {
      throw TokenizerError("tokenizer.json: the added token " + token.dump() + " has a wrong id");
    }
    one.id = static_cast<int32_t>(id);
    one.content = token.at("content").get<std::string>();
    one.special = Get(token, "special", false);
    one.single_word = Get(token, "single_word", false);
    one.lstrip = Get(token, "lstrip", false);
    one.rstrip = Get(token, "rstrip", false);
    one.normalized = Get(token, "normalized", !one.special);
    added.push_back(std::move(one));
  }
  return added;
}

void ReadNormalizer(const Json& part, Normalizer* normalizer) {
  if (part.is_null()) return;
  const std::string type = Type(part);
  if (type == "Sequence") {
    for (const Json& step : part.at("normalizers")) ReadNormalizer(step, normalizer);
  } else if (type == "NFC") {
    normalizer->AddNfc();
  } else if (type == "Prepend") {
    normalizer->AddPrepend(part.at("prepend").get<std::string>());
  } else if (type == "Replace") {
    const Json& pattern = part.at("pattern");
    auto content = part.at("content").get<std::string>();
    if (pattern.contains("String")) {
      auto from = pattern.at("String").get<std::string>();
      if (from.empty()) Refuse("the normalizer Replace of empty text");
      normalizer->AddReplace(std::move(from), std::move(content));
    } else {
      normalizer->AddReplacePattern(SplitPattern(pattern.at("Regex").get<std::string>()),
                                    std::move(content));
    }
  } else {
    Refuse("the normalizer \"" + type + "\" (NFC, Prepend, Replace and Sequence are)");
  }
}

SplitBehavior ReadBehavior(const std::string& name) {
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  Refuse("the behavior \"" + name + "\" of the pre-tokenizer Split");
}

PreTokenizer::Split ReadSplit(const Json& part) {
  const Json& pattern = part.at("pattern");
  const bool literal = pattern.contains("String");
  const auto text = pattern.at(literal ? "String" : "Regex").get<std::string>();
  return {SplitPattern(literal ? QuotePattern(text) : text),
          ReadBehavior(part.at("behavior").get<std::string>()), Get(part, "invert", false)};
}

PreTokenizer::Metaspace ReadMetaspace(const Json& part) {
  using Prepend = PreTokenizer::Metaspace::Prepend;
  PreTokenizer::Metaspace step;
  step.mark = Get<std::string>(part, "replacement", "\u2581");
  if (step.mark.empty()) Refuse("an empty replacement of the pre-tokenizer Metaspace");
  step.split = Get(part, "split", true);
  const auto scheme = Get<std::string>(part, "prepend_scheme", "always");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    Refuse("the prepend_scheme \"" + scheme + "\" of the pre-tokenizer Metaspace");
  }
  step.prepend = scheme == "always"  ? Prepend::kAlways
                 : scheme == "first" ? Prepend::kFirst
                                     : Prepend::kNever;
  if (!Get(part, "add_prefix_space", true)) step.prepend = Prepend::kNever;  // older files
  return step;
}

// spaces: whether normalised text still has any.
void ReadPreTokenizer(const Json& part, bool spaces, std::vector<PreTokenizer::Step>* steps) {
  if (part.is_null()) return;
  const std::string type = Type(part);
  if (type == "Sequence") {
    for (const Json& step : part.at("pretokenizers")) ReadPreTokenizer(step, spaces, steps);
    return;
  }
  if (!steps->empty() && std::holds_alternative<PreTokenizer::ByteLevel>(steps->back())) {
    Refuse("the pre-tokenizer \"" + type + "\" after ByteLevel");
  }
  if (type == "Split") {
    const bool at_spaces = part.at("pattern") == Json{{"String", " "}};
    if (at_spaces && !spaces && !Get(part, "invert", false))
      return;  // there is nothing to split at
    steps->emplace_back(ReadSplit(part));
  } else if (type == "Digits") {
    steps->emplace_back(PreTokenizer::Digits{Get(part, "individual_digits", false)});
  } else if (type == "ByteLevel") {
    PreTokenizer::ByteLevel step;
    step.add_prefix_space = Get(part, "add_prefix_space", true);
    if (Get(part, "use_regex", true)) step.pattern.emplace(kByteLevelPattern);
    steps->emplace_back(std::move(step));
  } else if (type == "Metaspace") {
    steps->emplace_back(ReadMetaspace(part));
  } else {
    Refuse("the pre-tokenizer \"" + type +
           "\" (ByteLevel, Digits, Metaspace, Split and Sequence are)");
  }
}

TokenizerParts ReadParts(const Json& file) {
  if (!file.is_object() || !file.contains("model")) {
    throw TokenizerError(
        "tokenizer.json: it has no part \"model\"; a file of the package tokenizers was expected");
  }
  TokenizerParts parts;
  parts.model = ReadModel(file.at("model"));
  parts.added_tokens = ReadAddedTokens(file.value("added_tokens", Json::array()));
  ReadNormalizer(file.value("normalizer", Json()), &parts.normalizer);
  ReadPreTokenizer(file.value("pre_tokenizer", Json()), !parts.normalizer.WritesSpaceMarks(),
                   &parts.pre_tokenizer);
  return parts;
}

}  // namespace

TokenizerParts ReadTokenizerJson(std::string_view json) {
  try {
    return ReadParts(Json::parse(json));
  } catch (const Json::exception& error) {
    throw TokenizerError(std::string("tokenizer.json cannot be read: ") + error.what());
  }
}

}  // namespace lmfusion
