#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "lmfusion/errors.h"
#include "lmfusion/tokenizer.h"
#include "text/tokenizers/byte_level.h"
#include "text/tokenizers/cuts.h"
#include "text/tokenizers/piece_cache.h"
#include "text/tokenizers/tokenizer_json.h"
#include "text/unicode/python_string.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

constexpr std::string_view kMark = "\u2581";

// Tokens as people see them, and which of them begin words.
struct VocabularyTable {
  std::vector<std::string> pieces;
  std::vector<bool> begins_word;
  std::unordered_map<std::string, int32_t> added;  // ids of added tokens

  void Set(int32_t id, std::string_view piece, bool begins) {
    const auto at = static_cast<size_t>(id);
    if (at >= pieces.size()) pieces.resize(at + 1), begins_word.resize(at + 1);
    pieces[at] = piece;
    begins_word[at] = begins;
  }
};

bool StartsWithSpace(std::string_view text) {
  const Utf8Character c = CharacterAt(text, 0);
  return c.value != kNoCharacter && (IsRegexSpace(c.value) || c.value == kSpaceMark);
}

// A byte of white space as byte fallback writes it: "<0x0A>".
bool IsSpaceByte(std::string_view piece) {
  return piece == "<0x20>" || piece == "<0x09>" || piece == "<0x0A>" || piece == "<0x0B>" ||
         piece == "<0x0C>" || piece == "<0x0D>";
}

VocabularyTable MakeTable(const TokenizerParts& parts, bool byte_level) {
  VocabularyTable table;
  for (const auto& [piece, id] : parts.model.vocabulary) {
    const bool begins = byte_level ? StartsWithSpace(ReadByteLevel(piece))
                                   : StartsWithSpace(piece) || IsSpaceByte(piece);
    table.Set(id, piece, begins);
  }
  for (const AddedToken& token : parts.added_tokens) {
    table.Set(token.id, token.content, StartsWithSpace(token.content));
    table.added[token.content] = token.id;
  }
  return table;
}

// Control tokens are never the result of merges. One that is a single character (some models pad
// with "!") is an ordinary character in text.
std::vector<int32_t> Forbidden(const TokenizerParts& parts) {
  std::vector<int32_t> ids;
  for (const AddedToken& token : parts.added_tokens) {
    const bool one_character =
        !token.content.empty() && Utf8Length(token.content[0]) >= token.content.size();
    if (token.special && !one_character) ids.push_back(token.id);
  }
  return ids;
}

AddedTokenMatcher Matcher(const TokenizerParts& parts, bool normalized) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : parts.added_tokens) {
    if (token.normalized != normalized) continue;
    if (normalized) token.content = parts.normalizer.Apply(token.content);
    tokens.push_back(std::move(token));
  }
  return AddedTokenMatcher(std::move(tokens));
}

class JsonTokenizer : public Tokenizer {
 public:
  explicit JsonTokenizer(TokenizerParts parts)
      : raw_tokens_(Matcher(parts, false)),
        normalized_tokens_(Matcher(parts, true)),
        normalizer_(std::move(parts.normalizer)),
        pre_tokenizer_(std::move(parts.pre_tokenizer)),
        byte_level_(pre_tokenizer_.ByteLevelPieces()),
        table_(MakeTable(parts, byte_level_)),
        bpe_(Model(&parts)),
        divides_(!byte_level_ && bpe_.DividesBefore(kMark)) {
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
  size_t LastCut(std::string_view text, size_t at) const override {
    return cuts_ ? LastSimpleSpace(text, at) : 0;
  }
  bool BeginsWord(int32_t id) const override { return table_.begins_word[Checked(id)]; }
  std::string Piece(int32_t id) const override { return table_.pieces[Checked(id)]; }
  int32_t PieceId(std::string_view piece) const override {
    const auto found = table_.added.find(std::string(piece));
    return found != table_.added.end() ? found->second : bpe_.Id(piece);
  }
  int32_t VocabularySize() const override { return static_cast<int32_t>(table_.pieces.size()); }

 private:
  static Bpe Model(TokenizerParts* parts) {
    parts->model.forbidden = Forbidden(*parts);
    return Bpe(std::move(parts->model));
  }

  size_t Checked(int32_t id) const {
    if (id < 0 || id >= VocabularySize()) {
      throw std::invalid_argument("token id " + std::to_string(id) + " is not in [0, " +
                                  std::to_string(VocabularySize()) + ")");
    }
    return static_cast<size_t>(id);
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
    PreTokenizer::Pieces pieces;
    pre_tokenizer_.Apply(text, first, &pieces);
    for (const std::string_view piece : pieces.views) {
      if (divides_) {
        EncodeDivided(piece, ids);
      } else {
        EncodePiece(piece, ids);
      }
    }
  }

  // Merges never reach across the beginning of a run of space marks: each part on its own.
  void EncodeDivided(std::string_view piece, std::vector<int32_t>* ids) const {
    while (!piece.empty()) {
      size_t end = 0;
      while (piece.compare(end, kMark.size(), kMark) == 0) end += kMark.size();
      end = piece.find(kMark, end);
      EncodePiece(piece.substr(0, end), ids);
      piece.remove_prefix(std::min(end, piece.size()));
    }
  }

  void EncodePiece(std::string_view piece, std::vector<int32_t>* ids) const {
    if (cache_.Find(piece, ids)) return;
    const size_t first = ids->size();
    if (byte_level_) {
      bpe_.Encode(WriteByteLevel(piece), ids);
    } else {
      bpe_.Encode(piece, ids);
    }
    cache_.Put(piece, *ids, first);
  }

  AddedTokenMatcher raw_tokens_, normalized_tokens_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  bool byte_level_;
  VocabularyTable table_;
  Bpe bpe_;
  bool divides_;
  bool cuts_ = false;
  PieceCache cache_;
};

}  // namespace

std::shared_ptr<const Tokenizer> TokenizerFromJson(std::string_view json) {
  return std::make_shared<const JsonTokenizer>(ReadTokenizerJson(json));
}

}  // namespace lmfusion
