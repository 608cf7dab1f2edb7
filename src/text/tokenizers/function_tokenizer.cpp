#include <stdexcept>
#include <string>
#include <utility>

#include "lmfusion/errors.h"
#include "lmfusion/tokenizer.h"
#include "text/unicode/utf8.h"

namespace lmfusion {

size_t Tokenizer::LastCut(std::string_view, size_t) const { return 0; }

std::vector<int32_t> Tokenizer::EncodeAfterCut(std::string_view rest) const { return Encode(rest); }

std::string Tokenizer::Decode(const std::vector<int32_t>&) const {
  throw std::invalid_argument(
      "this tokenizer has no pieces to make text of (a function from text to ids has none)");
}

namespace {

class FunctionTokenizer : public Tokenizer {
 public:
  FunctionTokenizer(std::function<std::vector<int32_t>(const std::string&)> encode,
                    int32_t vocabulary_size)
      : encode_(std::move(encode)), vocabulary_size_(vocabulary_size) {
    if (!encode_) throw std::invalid_argument("encode must be a function");
    if (vocabulary_size <= 0) {
      throw std::invalid_argument("vocabulary_size must be positive, got " +
                                  std::to_string(vocabulary_size));
    }
  }

  std::vector<int32_t> Encode(std::string_view text) const override {
    CheckUtf8(text);
    std::vector<int32_t> ids = encode_(std::string(text));
    for (const int32_t id : ids) Check(id, "the tokenizer function gave the token id ");
    return ids;
  }
  bool BeginsWord(int32_t id) const override {
    Check(id, "token id ");
    return false;
  }
  std::string Piece(int32_t id) const override {
    Check(id, "token id ");
    return "";
  }
  int32_t PieceId(std::string_view) const override { return -1; }
  int32_t VocabularySize() const override { return vocabulary_size_; }

 private:
  void Check(int32_t id, const char* what) const {
    if (id < 0 || id >= vocabulary_size_) {
      throw std::invalid_argument(what + std::to_string(id) + ", which is not in [0, " +
                                  std::to_string(vocabulary_size_) + ")");
    }
  }

  std::function<std::vector<int32_t>(const std::string&)> encode_;
  int32_t vocabulary_size_;
};

}  // namespace

std::shared_ptr<const Tokenizer> TokenizerFromFunction(
    std::function<std::vector<int32_t>(const std::string&)> encode, int32_t vocabulary_size) {
  return std::make_shared<const FunctionTokenizer>(std::move(encode), vocabulary_size);
}

}  // namespace lmfusion
