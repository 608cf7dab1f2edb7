#include <algorithm>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "lmfusion/tokenizer.h"
#include "text/tokenizers/byte_level.h"
#include "text/tokenizers/cuts.h"
#include "text/tokenizers/ordinary_ids.h"
#include "text/tokenizers/space_mark.h"
#include "text/tokenizers/tokenizer_json.h"
#include "text/tokenizers/word_cache.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

// Tokens as people see them, and which of them begin words. Ids may have gaps.
class VocabularyTable {
 public:
  struct Token {
    int32_t id;
    std::string piece;
    bool begins_word;
  };

  // `tokens`: each id once.
  explicit VocabularyTable(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
    std::sort(tokens_.begin(), tokens_.end(), IdIsLess);
  }
  // Null where no token has the id, which is not above the largest.
  const Token* Find(int32_t id) const {
    const auto at =
        std::lower_bound(tokens_.begin(), tokens_.end(), Token{id, "", false}, IdIsLess);
    return at->id != id ? nullptr : &*at;
  }
  // One more than the largest id.
  int32_t size() const { return tokens_.empty() ? 0 : tokens_.back().id + 1; }

 private:
  static bool IdIsLess(const Token& a, const Token& b) { return a.id < b.id; }

  std::vector<Token> tokens_;  // by id
};

bool StartsWithSpace(std::string_view text) {
  const Utf8Character c = CharacterAt(text, 0);
  return c.value != kNoCharacter && (IsRegexSpace(c.value) || c.value == kSpaceMark);
}

VocabularyTable MakeTable(const TokenizerParts& parts, bool byte_level) {
  std::vector<VocabularyTable::Token> tokens;
  std::unordered_set<std::string_view> added;
  for (const AddedToken& token : parts.added_tokens) {
    added.insert(token.content);
    tokens.push_back({token.id, token.content, StartsWithSpace(token.content)});
  }
  for (const auto& [piece, id] : parts.model.vocabulary) {
    if (added.count(piece) != 0) continue;
    const bool begins = byte_level ? StartsWithSpace(ReadByteLevel(piece))
                                   : StartsWithSpace(piece) || IsSpaceByte(piece);
    tokens.push_back({id, piece, begins});
  }
  return VocabularyTable(std::move(tokens));
}

int32_t OrdinarySizeOf(const TokenizerParts& parts) {
  std::unordered_set<std::string_view> added;
  for (const AddedToken& token : parts.added_tokens) added.insert(token.content);
  int32_t size = 0;
  for (const auto& [piece, id] : parts.model.vocabulary) {
    if (added.count(piece) == 0) size = std::max(size, id + 1);
  }
  return size;
}

std::unordered_map<std::string, int32_t> IdsOfAdded(const TokenizerParts& parts) {
  std::unordered_map<std::string, int32_t> ids;
  for (const AddedToken& token : parts.added_tokens) ids[token.content] = token.id;
  return ids;
}

// The ids of control tokens, which no text may give. A control token of one character (some models
// pad with "!") is left out: in text it is that character.
std::vector<int32_t> Forbidden(const TokenizerParts& parts) {
  std::vector<int32_t> ids;
  for (const AddedToken& token : parts.added_tokens) {
    const bool one_character = Utf8Length(token.content[0]) >= token.content.size();
    if (token.special && !one_character) ids.push_back(token.id);
  }
  return ids;
}

AddedTokenMatcher Matcher(const TokenizerParts& parts, bool normalized,
                          SpecialTokens special_tokens) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : parts.added_tokens) {
    if (token.normalized != normalized) continue;
    if (special_tokens == SpecialTokens::kAllow) token.special = false;
    if (normalized) token.content = parts.normalizer.Apply(token.content);
    tokens.push_back(std::move(token));
  }
  return AddedTokenMatcher(std::move(tokens));
}

class JsonTokenizer : public Tokenizer, public OrdinaryIds {
 public:
  JsonTokenizer(TokenizerParts parts, SpecialTokens special_tokens)
      : raw_tokens_(Matcher(parts, false, special_tokens)),
        normalized_tokens_(Matcher(parts, true, special_tokens)),
        normalizer_(std::move(parts.normalizer)),
        pre_tokenizer_(std::move(parts.pre_tokenizer)),
        byte_level_(pre_tokenizer_.WritesBytes()),
        table_(MakeTable(parts, byte_level_)),
        added_(IdsOfAdded(parts)),
        ordinary_size_(OrdinarySizeOf(parts)),
        bpe_(Model(&parts, special_tokens)),
        divides_(!byte_level_ && bpe_.DividesBefore(kSpaceMarkUtf8)) {
    const bool spaces = !normalizer_.WritesSpaceMarks();
    cuts_ = raw_tokens_.AllowsCuts() && normalized_tokens_.AllowsCuts() &&
            normalizer_.AllowsCuts() && pre_tokenizer_.AllowsCuts(spaces) &&
            (pre_tokenizer_.SplitsAtCuts(spaces) ||
             (divides_ && (!spaces || pre_tokenizer_.WritesSpaceMarks())));
  }

  std::vector<int32_t> Encode(std::string_view text) const override {
    return EncodeText(text, false);
  }
  std::vector<int32_t> EncodeAfterCut(std::string_view rest) const override {
    return EncodeText(rest, true);
  }
  std::string Decode(const std::vector<int32_t>& ids) const override {
    std::string text = Joined(ids);
    if (byte_level_ || text.empty() || text[0] != ' ') return text;
    const bool puts_space_before_texts = Joined(EncodeText("a", false)) == " a";
    return puts_space_before_texts ? text.substr(1) : text;
  }
  size_t LastCut(std::string_view text, size_t at) const override {
    return cuts_ ? LastSimpleSpace(text, at) : 0;
  }
  bool BeginsWord(int32_t id) const override {
    const auto* token = Find(id);
    return token != nullptr && token->begins_word;
  }
  std::string Piece(int32_t id) const override {
    const auto* token = Find(id);
    return token == nullptr ? "" : token->piece;
  }
  int32_t PieceId(std::string_view piece) const override {
    const auto found = added_.find(std::string(piece));
    return found != added_.end() ? found->second : bpe_.Id(piece);
  }
  int32_t VocabularySize() const override { return table_.size(); }
  int32_t OrdinarySize() const override { return ordinary_size_; }

 private:
  static Bpe Model(TokenizerParts* parts, SpecialTokens special_tokens) {
    if (special_tokens == SpecialTokens::kText) parts->model.forbidden = Forbidden(*parts);
    return Bpe(std::move(parts->model));
  }

  // Null where the vocabulary has a gap.
  const VocabularyTable::Token* Find(int32_t id) const {
    if (id < 0 || id >= VocabularySize()) {
      throw std::invalid_argument("token id " + std::to_string(id) + " is not in [0, " +
                                  std::to_string(VocabularySize()) + ")");
    }
    return table_.Find(id);
  }

  std::string Joined(const std::vector<int32_t>& ids) const {
    std::string text;
    for (const int32_t id : ids) {
      const auto* token = Find(id);
      if (token == nullptr) continue;
      const bool is_added = byte_level_ && added_.count(token->piece) != 0;
      text += is_added      ? token->piece
              : byte_level_ ? ReadByteLevel(token->piece)
                            : ReadSpaceMarks(token->piece);
    }
    return text;
  }

  std::vector<int32_t> EncodeText(std::string_view text, bool after_cut) const {
    CheckUtf8(text);
    std::vector<int32_t> ids;
    if (!raw_tokens_.MayMatch(text)) {
      EncodeOrdinary(text, !after_cut, after_cut, &ids);
      return ids;
    }
    for (const auto& part : raw_tokens_.Split(text)) {
      const bool begins = part.text.data() == text.data();
      if (part.id >= 0) {
        ids.push_back(part.id);
      } else {
        EncodeOrdinary(part.text, begins && !after_cut, begins && after_cut, &ids);
      }
    }
    return ids;
  }

  // Text without added tokens as they are written.
  void EncodeOrdinary(std::string_view text, bool first, bool after_cut,
                      std::vector<int32_t>* ids) const {
    std::string normalized;
    if (!normalizer_.Keeps(text)) {
      normalized = normalizer_.Apply(text, after_cut);
      text = normalized;
    }
    if (!normalized_tokens_.MayMatch(text)) {
      EncodeNormalized(text, first, ids);
      return;
    }
    for (const auto& part : normalized_tokens_.Split(text)) {
      if (part.id >= 0) {
        ids->push_back(part.id);
      } else {
        EncodeNormalized(part.text, first && part.text.data() == text.data(), ids);
      }
    }
  }

  void EncodeNormalized(std::string_view text, bool first, std::vector<int32_t>* ids) const {
    if (text.empty()) return;
    PreTokenizer::Words words;
    pre_tokenizer_.Apply(text, first, &words);
    for (const std::string_view word : words.views) {
      if (divides_) {
        EncodeDivided(word, ids);
      } else {
        EncodeWord(word, ids);
      }
    }
  }

  // Merges never reach across the beginning of a run of space marks: each part on its own.
  void EncodeDivided(std::string_view word, std::vector<int32_t>* ids) const {
    while (!word.empty()) {
      size_t end = 0;
      while (word.compare(end, kSpaceMarkUtf8.size(), kSpaceMarkUtf8) == 0)
        end += kSpaceMarkUtf8.size();
      end = word.find(kSpaceMarkUtf8, end);
      EncodeWord(word.substr(0, end), ids);
      word.remove_prefix(std::min(end, word.size()));
    }
  }

  void EncodeWord(std::string_view word, std::vector<int32_t>* ids) const {
    if (cache_.Find(word, ids)) return;
    const size_t first = ids->size();
    if (byte_level_) {
      bpe_.Encode(WriteByteLevel(word), ids);
    } else {
      bpe_.Encode(word, ids);
    }
    cache_.Put(word, *ids, first);
  }

  AddedTokenMatcher raw_tokens_, normalized_tokens_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  bool byte_level_;
  VocabularyTable table_;
  std::unordered_map<std::string, int32_t> added_;  // ids of added tokens
  int32_t ordinary_size_;
  Bpe bpe_;
  bool divides_;
  bool cuts_ = false;
  WordCache cache_;
};

}  // namespace

std::shared_ptr<const Tokenizer> TokenizerFromJson(std::string_view json,
                                                   SpecialTokens special_tokens) {
  return std::make_shared<const JsonTokenizer>(ReadTokenizerJson(json), special_tokens);
}

}  // namespace lmfusion
