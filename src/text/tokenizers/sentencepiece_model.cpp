#include "text/tokenizers/sentencepiece_model.h"

#include <cstdint>

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

// Numbers of fields and types in sentencepiece_model.proto.
enum ModelField { kPieces = 1, kTrainer = 2, kNormalizer = 3 };
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
        if (field.tag == 3) traits.add_dummy_prefix = field.number != 0;
        if (field.tag == 4) traits.remove_extra_whitespaces = field.number != 0;
        if (field.tag == 5) traits.escape_whitespaces = field.number != 0;
      }
    }
  }
  return traits;
}

}  // namespace lmfusion
