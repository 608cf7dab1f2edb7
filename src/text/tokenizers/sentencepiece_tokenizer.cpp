#include <sentencepiece_processor.h>

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string>

#include "lmfusion/errors.h"
#include "lmfusion/tokenizer.h"
#include "text/tokenizers/cuts.h"
#include "text/tokenizers/ordinary_ids.h"
#include "text/tokenizers/sentencepiece_library.h"
#include "text/tokenizers/sentencepiece_model.h"
#include "text/tokenizers/space_mark.h"
#include "text/tokenizers/word_cache.h"
#include "text/unicode/utf8.h"

namespace lmfusion {
namespace {

// Note [SentencePiece cuts]
// A SentencePiece BPE model joins pieces by their own scores only, so what stands before a space
// that no piece spans changes nothing after it: text is encoded word by word, and words that were
// seen are remembered. The dummy prefix of the library stands for the space that was cut off.
// A unigram model adds up scores from the beginning of the text in float32; where two
// segmentations of a word tie ("aa|a", "a|aa"), rounding, and so the text before, decides. Such
// models have no cuts.
bool AllowsCuts(const SentencePieceTraits& traits) {
  constexpr std::string_view kKnown[] = {"identity", "nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf"};
  return traits.model_type == SentencePieceTraits::kBpe && traits.add_dummy_prefix &&
         traits.escape_whitespaces && !traits.whitespace_is_suffix && !traits.piece_spans_space &&
         !traits.user_piece_has_space &&
         std::find(std::begin(kKnown), std::end(kKnown), traits.normalization) != std::end(kKnown);
}

class SentencePieceTokenizer : public Tokenizer, public OrdinaryIds {
 public:
  explicit SentencePieceTokenizer(std::string_view model) {
    const SentencePieceTraits traits = ReadSentencePieceTraits(model);
    cuts_ = AllowsCuts(traits);
    ordinary_size_ = traits.ordinary_size;
    const auto status = processor_.LoadFromSerializedProto(model);
    if (!status.ok() || processor_.GetPieceSize() <= 0) {
      throw TokenizerError("the SentencePiece model cannot be read: " + status.ToString());
    }
    cuts_ =
        cuts_ && PieceId(kSpaceMarkUtf8) >= 0;  // else an unknown mark joins an unknown neighbour
  }

  std::vector<int32_t> Encode(std::string_view text) const override {
    CheckUtf8(text);
    std::vector<int32_t> ids;
    size_t begin = 0;
    for (size_t end = 1; cuts_ && end < text.size(); ++end) {
      if (!IsSimpleSpace(text, end)) continue;
      EncodePart(text.substr(begin, end - begin), &ids);
      begin = end + 1;  // the dummy prefix stands for the space
    }
    EncodePart(text.substr(begin), &ids);
    return ids;
  }

  std::vector<int32_t> EncodeAfterCut(std::string_view rest) const override {
    if (!cuts_ || rest.empty() || rest.front() != ' ') return Encode(rest);
    return Encode(rest.substr(1));
  }

  size_t LastCut(std::string_view text, size_t at) const override {
    return cuts_ ? LastSimpleSpace(text, at) : 0;
  }

  std::string Decode(const std::vector<int32_t>& ids) const override {
    for (const int32_t id : ids) Checked(id);
    std::string text;
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    if (!status.ok()) throw Error("sentencepiece cannot decode tokens: " + status.ToString());
    return text;
  }

  bool BeginsWord(int32_t id) const override {
    const std::string& piece = processor_.IdToPiece(Checked(id));
    if (processor_.IsControl(id) || processor_.IsUnknown(id)) return false;
    const std::string_view start = std::string_view(piece).substr(0, kSpaceMarkUtf8.size());
    if (start == kSpaceMarkUtf8 || IsSpaceByte(piece)) return true;
    return !piece.empty() && (piece[0] == ' ' || (piece[0] >= '\t' && piece[0] <= '\r'));
  }
  std::string Piece(int32_t id) const override { return processor_.IdToPiece(Checked(id)); }
  int32_t PieceId(std::string_view piece) const override {
    const int id = processor_.PieceToId(piece);  // the unknown token's where there is none
    return id >= 0 && id < VocabularySize() && processor_.IdToPiece(id) == piece ? id : -1;
  }
  int32_t VocabularySize() const override { return processor_.GetPieceSize(); }
  int32_t OrdinarySize() const override { return ordinary_size_; }

 private:
  int Checked(int32_t id) const {
    if (id < 0 || id >= VocabularySize()) {
      throw std::invalid_argument("token id " + std::to_string(id) + " is not in [0, " +
                                  std::to_string(VocabularySize()) + ")");
    }
    return id;
  }

  void EncodePart(std::string_view part, std::vector<int32_t>* ids) const {
    if (cache_.Find(part, ids)) return;
    std::vector<int> found;
    const auto status = processor_.Encode(part, &found);
    if (!status.ok()) throw Error("sentencepiece cannot encode a text: " + status.ToString());
    const size_t first = ids->size();
    ids->insert(ids->end(), found.begin(), found.end());
    cache_.Put(part, *ids, first);
  }

  sentencepiece::SentencePieceProcessor processor_;
  bool cuts_ = false;
  int32_t ordinary_size_ = 0;
  WordCache cache_;
};

}  // namespace
}  // namespace lmfusion

void lmfusion_open_sentencepiece(std::string_view model,
                                 std::shared_ptr<const lmfusion::Tokenizer>* tokenizer) {
  *tokenizer = std::make_shared<const lmfusion::SentencePieceTokenizer>(model);
}
