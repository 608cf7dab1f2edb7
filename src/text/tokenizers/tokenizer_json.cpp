#include "text/tokenizers/tokenizer_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/json_limits.h"
#include "lmfusion/errors.h"
#include "text/tokenizers/json_tree.h"
#include "text/tokenizers/pattern_syntax.h"
#include "text/tokenizers/space_mark.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

using Json = nlohmann::json;

// ByteLevel's built-in pattern (GPT-2).
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Limits of what is read; real files are far from them.
constexpr JsonLimits kLimits{32, 1 << 23, 1 << 24};
constexpr size_t kMaxSteps = 64;  // of a normalizer, of a pre-tokenizer
constexpr uint64_t kMaxId = (1 << 24) - 1;

[[noreturn]] void Fail(const std::string& what) { throw TokenizerError("tokenizer.json: " + what); }

[[noreturn]] void Refuse(const std::string& what) {
  throw TokenizerError("tokenizer.json: " + what + " is not implemented" + kTokenizerWayOut);
}

// object[key], or `otherwise` where it is missing or null.
template <typename T>
T Get(const Json& object, const char* key, T otherwise) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? otherwise : found->template get<T>();
}

// At most `limit` bytes of a value as JSON in ASCII, for messages.
std::string Shown(const Json& value, size_t limit = 60) {
  const std::string text = value.dump(-1, ' ', true);
  return text.size() <= limit ? text : text.substr(0, limit) + "...";
}

int32_t ReadId(const Json& id, const char* what, const std::string& name) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() > kMaxId) {
    Fail(std::string(what) + Shown(name) + " has the id " + Shown(id) + "; an integer from 0 to " +
         std::to_string(kMaxId) + " was expected");
  }
  return id.get<int32_t>();
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
  for (const auto& [piece, id] : model.at("vocab").get_ref<const Json::object_t&>()) {
    bpe.vocabulary.emplace(piece, ReadId(id, "the piece ", piece));
  }
  for (const Json& merge : model.at("merges").get_ref<const Json::array_t&>()) {
    if (merge.is_array() && merge.size() == 2) {
      bpe.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      Fail("the merge " + Shown(merge) + " is not a pair");
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
  for (const Json& token : tokens.get_ref<const Json::array_t&>()) {
    AddedToken one;
    one.content = token.at("content").get<std::string>();
    one.id = ReadId(token.at("id"), "the added token ", one.content);
    one.special = Get(token, "special", false);
    one.single_word = Get(token, "single_word", false);
    one.lstrip = Get(token, "lstrip", false);
    one.rstrip = Get(token, "rstrip", false);
    one.normalized = Get(token, "normalized", !one.special);
    added.push_back(std::move(one));
  }
  return added;
}

// The package tokenizers does not take the ids of added tokens from the file: a token that the
// model's vocabulary has keeps its id there, others are numbered from the size of the vocabulary
// on. A file that says something else would give other ids there than here. Every id is that of one
// token.
void CheckIds(const TokenizerParts& parts) {
  const auto& vocabulary = parts.model.vocabulary;
  std::unordered_map<int32_t, std::string_view> piece_of;
  for (const auto& [piece, id] : vocabulary) {
    const auto [other, is_new] = piece_of.emplace(id, piece);
    if (!is_new) {
      Fail("the pieces " + Shown(piece) + " and " + Shown(std::string(other->second)) +
           " have the same id " + std::to_string(id));
    }
  }
  auto next = static_cast<int32_t>(vocabulary.size());
  std::unordered_set<std::string_view> seen;
  for (const AddedToken& token : parts.added_tokens) {
    if (token.content.empty()) Fail("an added token is empty");
    if (!seen.insert(token.content).second) {
      Fail("the added token " + Shown(token.content) + " is there twice");
    }
    const auto known = vocabulary.find(token.content);
    const int32_t id = known == vocabulary.end() ? next++ : known->second;
    if (token.id != id) {
      Fail("the added token " + Shown(token.content) + " has the id " + std::to_string(token.id) +
           ", but the package tokenizers reads it as " + std::to_string(id) +
           "; read the file with that package and save it again");
    }
    if (known == vocabulary.end() && !piece_of.emplace(id, token.content).second) {
      Fail("the added token " + Shown(token.content) + " has the id " + std::to_string(id) +
           " of the piece " + Shown(std::string(piece_of[id])));
    }
  }
}

void ReadNormalizer(const Json& part, Normalizer* normalizer) {
  if (part.is_null()) return;
  if (normalizer->steps() >= kMaxSteps) Refuse("a normalizer of so many steps");
  const std::string type = Type(part);
  if (type == "Sequence") {
    for (const Json& step : part.at("normalizers").get_ref<const Json::array_t&>()) {
      ReadNormalizer(step, normalizer);
    }
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
  step.mark = Get<std::string>(part, "replacement", std::string(kSpaceMarkUtf8));
  if (step.mark.empty() || Utf8Length(step.mark[0]) != step.mark.size()) {
    Refuse("a replacement of the pre-tokenizer Metaspace that is not one character");
  }
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
    for (const Json& step : part.at("pretokenizers").get_ref<const Json::array_t&>()) {
      ReadPreTokenizer(step, spaces, steps);
    }
    return;
  }
  if (steps->size() >= kMaxSteps) Refuse("a pre-tokenizer of so many steps");
  if (!steps->empty() && std::holds_alternative<PreTokenizer::ByteLevel>(steps->back())) {
    Refuse("the pre-tokenizer \"" + type + "\" after ByteLevel");
  }
  if (type == "Split") {
    const Json& pattern = part.at("pattern");
    const bool at_spaces =
        pattern.is_object() && pattern.contains("String") && pattern.at("String") == " ";
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

// Calls read(); what is wrong there is wrong with `part`.
template <typename Read>
void InPart(const char* part, Read read) {
  try {
    read();
  } catch (const Json::exception& error) {
    Fail(std::string("the part \"") + part + "\" cannot be read: " + error.what());
  }
}

// A part of the file; null where there is none.
const Json& Part(const Json& file, const char* name) {
  static const Json none;
  const auto found = file.find(name);
  return found == file.end() ? none : *found;
}

TokenizerParts ReadParts(const Json& file) {
  if (!file.is_object() || !file.contains("model")) {
    Fail("it has no part \"model\"; a file of the package tokenizers was expected");
  }
  TokenizerParts parts;
  InPart("model", [&] { parts.model = ReadModel(file.at("model")); });
  InPart("added_tokens", [&] {
    if (file.contains("added_tokens")) parts.added_tokens = ReadAddedTokens(file["added_tokens"]);
  });
  CheckIds(parts);
  InPart("normalizer", [&] { ReadNormalizer(Part(file, "normalizer"), &parts.normalizer); });
  InPart("pre_tokenizer", [&] {
    ReadPreTokenizer(Part(file, "pre_tokenizer"), !parts.normalizer.WritesSpaceMarks(),
                     &parts.pre_tokenizer);
  });
  return parts;
}

}  // namespace

TokenizerParts ReadTokenizerJson(std::string_view json) {
  if (const char* const beyond = BeyondLimits(json, kLimits)) Fail(beyond);
  try {
    return ReadParts(JsonTree(json).root());
  } catch (const Json::parse_error& error) {  // its text may hold bytes that are not UTF-8
    Fail("it cannot be read: it is not JSON at byte " + std::to_string(error.byte));
  } catch (const Json::out_of_range&) {
    Fail("it cannot be read: a number in it is out of range");
  }
}

}  // namespace lmfusion
