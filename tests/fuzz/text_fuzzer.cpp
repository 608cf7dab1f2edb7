#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lmfusion/errors.h"
#include "lmfusion/tokenizer.h"
#include "lmfusion/truecaser.h"
#include "text/casing/treebank.h"
#include "text/unicode/utf8.h"
#include "truecaser_file.h"

namespace lmfusion {
namespace {

// Stops the program where a property of every text does not hold.
void Require(bool holds) {
  if (!holds) std::abort();
}

// The kinds of tokenizer.json: byte-level, with NFC and Digits; "▁" by a normalizer, with byte
// fallback and added tokens; "▁" by Metaspace.
std::vector<std::shared_ptr<const Tokenizer>> Tokenizers() {
  const char* const files[] = {
      R"({"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
          {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel",
           "add_prefix_space": false}]}, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2,
           "ab": 3, "Ġa": 4, "Ġab": 5, "Ã": 6, "©": 7, "Ã©": 8, "'": 9, "s": 10, "1": 11},
           "merges": ["a b", "Ġ a", "Ġ ab", "Ã ©"]}})",
      R"({"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
          "added_tokens": [{"id": 5, "content": "[X]", "lstrip": true, "rstrip": true}],
          "model": {"type": "BPE", "unk_token": "a", "fuse_unk": true, "byte_fallback": true,
          "vocab": {"a": 0, "b": 1, "▁": 2, "ab": 3, "▁ab": 4}, "merges": ["a b", "▁ ab"]}})",
      R"({"pre_tokenizer": {"type": "Metaspace"}, "model": {"type": "BPE",
          "vocab": {"a": 0, "b": 1, "▁": 2, "▁a": 3}, "merges": ["▁ a"]}})"};
  std::vector<std::shared_ptr<const Tokenizer>> all;
  for (const char* file : files) all.push_back(TokenizerFromJson(file));
  return all;
}

// Parts on both sides of every cut give the tokens of the whole.
void CheckCuts(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<int32_t> whole = tokenizer.Encode(text);
  for (size_t at = text.size(); at > 0;) {
    const size_t cut = tokenizer.LastCut(text, at);
    if (cut == 0) break;
    Require(cut <= at);
    std::vector<int32_t> parts = tokenizer.Encode(text.substr(0, cut));
    const std::vector<int32_t> rest = tokenizer.EncodeAfterCut(text.substr(cut));
    parts.insert(parts.end(), rest.begin(), rest.end());
    Require(parts == whole);
    at = cut - 1;
  }
}

// Words on both sides of a boundary are those of the whole.
void CheckBoundaries(std::string_view text) {
  const std::vector<std::string> whole = SplitTreebankWords(text);
  JoinTreebankWords(whole);
  if (const TreebankGap gap = NextTreebankGap(text, 0)) {
    std::vector<std::string> parts = SplitTreebankWords(text.substr(0, gap.begin));
    for (std::string& word : SplitTreebankWords(text.substr(gap.end))) parts.push_back(word);
    Require(parts == whole);
  }
}

void CheckCased(const CasedText& cased) {
  CheckUtf8(std::string_view(cased.text).substr(0, cased.context_bytes));
  CheckUtf8(std::string_view(cased.text).substr(cased.context_bytes));
}

void CheckCasings(const std::string& context, const std::string& word) {
  for (const char* name : {"none", "sentence", "variants"}) {
    const auto casing = CasingByName(name);
    CheckCased(casing->Apply(context, word));
    for (const CasedText& cased : casing->Alternatives(context, word)) CheckCased(cased);
  }
  static const std::string file = TinyTruecaserFile();
  for (const bool compat : {false, true}) {
    const auto used = TruecaserFromBytes(file, compat), unused = TruecaserFromBytes(file, compat);
    used->Apply("", context);
    const CasedText cased = used->Apply(context, word), anew = unused->Apply(context, word);
    CheckCased(cased);
    Require(cased.text == anew.text && cased.context_bytes == anew.context_bytes);
  }
}

}  // namespace
}  // namespace lmfusion

// Bytes that are not UTF-8 are a TextError everywhere; for a text, what is done in parts is what is
// done at once.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lmfusion;
  static const auto tokenizers = Tokenizers();
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    CheckUtf8(text);
  } catch (const TextError&) {
    for (const auto& tokenizer : tokenizers) {
      try {
        tokenizer->Encode(text);
        std::abort();
      } catch (const TextError&) {
      }
    }
    return 0;
  }
  for (const auto& tokenizer : tokenizers) CheckCuts(*tokenizer, text);
  CheckBoundaries(text);
  size_t middle = size / 2;
  while (middle > 0 && (text[middle] & 0xc0) == 0x80) --middle;
  CheckCasings(text.substr(0, middle), text.substr(middle));
  return 0;
}
