#include "text/tokenizers/sentencepiece_model.h"

#include <cstdint>
#include <cstring>

#include "lmfusion/errors.h"
#include "text/tokenizers/space_mark.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

// A field of a protocol buffer: a number, or bytes.
struct Field {
  uint64_t tag = 0;
  uint64_t number = 0;
  std::string_view bytes;
};

// The fields of a message, one after another.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}

  bool Next(Field* field) {
    if (rest_.empty()) return false;
    const uint64_t key = Number();
    *field = {key >> 3, 0, {}};
    switch (key & 7) {
      case 0: field->number = Number(); break;
      case 1: field->bytes = Take(8); break;
      case 2: field->bytes = Take(Number()); break;
      case 5: field->bytes = Take(4); break;
      default: Fail();
    }
    return true;
  }

 private:
  [[noreturn]] static void Fail() {
    throw TokenizerError(
        "the SentencePiece model is damaged or is none: its fields do not fit its size");
  }

  std::string_view Take(uint64_t size) {
    if (size > rest_.size()) Fail();
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  uint64_t Number() {
    uint64_t number = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(Take(1)[0]);
      number |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return number;
    }
    Fail();
  }

  std::string_view rest_;
};

// Note [Normalisation tables]
// A model holds what its normaliser does as a table: the size of a trie in bytes (uint32), the trie
// (a double array of Darts), and the texts that its values point to, each ending in a zero. The
// library follows the table without checks, so it is checked here. A match of characters walks from
// unit to unit, beginning with the first, and never enters one whose highest bit is set (a value,
// or unused). Each other unit names 256 units, one for each byte that may follow, and all of them
// have to be in the trie; where a match may end, the first of them holds its value.
bool IsSafeTable(std::string_view table) {
  if (table.empty()) return true;  // none
  const auto number_at = [table](size_t at) {
    uint32_t number;
    std::memcpy(&number, table.data() + at, sizeof number);
    return number;
  };
  if (table.size() < 4) return false;
  const size_t trie_bytes = number_at(0);
  if (trie_bytes % 4 != 0 || trie_bytes / 4 < 256 || trie_bytes >= table.size() - 4) return false;
  const size_t units = trie_bytes / 4, texts = table.size() - 4 - trie_bytes;
  if (table.back() != '\0') return false;
  constexpr uint32_t kHighest = 1u << 31;
  for (size_t i = 0; i < units; ++i) {
    const uint32_t unit = number_at(4 + 4 * i);
    if (i != 0 && (unit & kHighest) != 0) continue;  // a value, or unused
    const size_t offset = static_cast<size_t>(unit >> 10) << ((unit & (1u << 9)) >> 6);
    const size_t first = i ^ offset;
    if ((first | 0xff) >= units) return false;
    const bool ends_match = (unit & (1u << 8)) != 0;
    if (ends_match && (number_at(4 + 4 * first) & ~kHighest) >= texts) return false;
  }
  return true;
}

void CheckTable(std::string_view table) {
  if (IsSafeTable(table)) return;
  throw TokenizerError("the SentencePiece model is damaged: its table of characters is none");
}

// Numbers of fields and types in sentencepiece_model.proto.
enum ModelField { kPieces = 1, kTrainer = 2, kNormalizer = 3, kDenormalizer = 5 };
enum PieceType { kNormal = 1, kUserDefined = 4, kUnused = 5 };

bool SpansSpace(std::string_view piece) {
  bool other = false;
  for (size_t at = 0; at < piece.size(); at += Utf8Length(piece[at])) {
    const bool space =
        piece[at] == ' ' || piece.compare(at, kSpaceMarkUtf8.size(), kSpaceMarkUtf8) == 0;
    if (space && other) return true;
    other = other || !space;
  }
  return false;
}

void ReadPiece(std::string_view message, SentencePieceTraits* traits) {
  std::string_view piece;
  uint64_t type = kNormal;
  Field field;
  for (Fields fields(message); fields.Next(&field);) {
    if (field.tag == 1) piece = field.bytes;
    if (field.tag == 3) type = field.number;
  }
  ++traits->pieces;
  if (type == kNormal) traits->ordinary_size = traits->pieces;
  if (type != kNormal && type != kUserDefined && type != kUnused) return;
  traits->piece_spans_space = traits->piece_spans_space || SpansSpace(piece);
  if (type == kUserDefined && piece.find(' ') != std::string_view::npos) {
    traits->user_piece_has_space = true;
  }
}

}  // namespace

SentencePieceTraits ReadSentencePieceTraits(std::string_view model) {
  SentencePieceTraits traits;
  Field part, field;
  for (Fields parts(model); parts.Next(&part);) {
    if (part.tag == kPieces) {
      ReadPiece(part.bytes, &traits);
    } else if (part.tag == kTrainer) {
      for (Fields fields(part.bytes); fields.Next(&field);) {
        if (field.tag == 3) traits.model_type = static_cast<int>(field.number);
        if (field.tag == 24) traits.whitespace_is_suffix = field.number != 0;
      }
    } else if (part.tag == kNormalizer) {
      for (Fields fields(part.bytes); fields.Next(&field);) {
        if (field.tag == 1) traits.normalization = field.bytes;
        if (field.tag == 2) CheckTable(field.bytes);
        if (field.tag == 3) traits.add_dummy_prefix = field.number != 0;
        if (field.tag == 4) traits.remove_extra_whitespaces = field.number != 0;
        if (field.tag == 5) traits.escape_whitespaces = field.number != 0;
      }
    } else if (part.tag == kDenormalizer) {
      for (Fields fields(part.bytes); fields.Next(&field);) {
        if (field.tag == 2) CheckTable(field.bytes);
      }
    }
  }
  return traits;
}

}  // namespace lmfusion
