// The SentencePiece tokenizer, linked into the test, so that sanitizers see it too.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "text/tokenizers/sentencepiece_library.h"
#include "text/tokenizers/sentencepiece_model.h"

namespace lmfusion {
namespace {

using Ids = std::vector<int32_t>;

// Fields of a protocol buffer.
std::string Number(int field, uint64_t value) {
  std::string out(1, static_cast<char>(field << 3));
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

std::string Bytes(int field, std::string_view bytes) {
  std::string out = Number(field, bytes.size());
  out[0] = static_cast<char>(field << 3 | 2);
  return out.append(bytes);
}

std::string Piece(std::string_view piece, float score, uint64_t type = 1) {
  char bits[4];
  std::memcpy(bits, &score, 4);
  const std::string score_field = std::string(1, 2 << 3 | 5) + std::string(bits, 4);
  return Bytes(1, Bytes(1, piece) + score_field + Number(3, type));
}

// A BPE model: <unk> 0, "▁" 1, "a" 2, "b" 3, "ab" 4, "▁ab" 5.
std::string Model(const std::string& more = "", const std::string& charsmap = "") {
  return Piece("<unk>", 0, 2) + Piece("\u2581", -3) + Piece("a", -4) + Piece("b", -5) +
         Piece("ab", -1) + Piece("\u2581ab", -2) + more +
         Bytes(2, Number(3, SentencePieceTraits::kBpe)) +
         Bytes(3, Bytes(1, "identity") + Bytes(2, charsmap));
}

std::shared_ptr<const Tokenizer> Open(std::string_view model) {
  std::shared_ptr<const Tokenizer> tokenizer;
  lmfusion_open_sentencepiece(model, &tokenizer);
  return tokenizer;
}

TEST(SentencePiece, MergesAndCuts) {
  const auto tokenizer = Open(Model());
  EXPECT_EQ(tokenizer->Encode("ab ab b"), (Ids{5, 5, 1, 3}));
  EXPECT_EQ(tokenizer->LastCut("ab ab", 5), 2u);
  EXPECT_EQ(tokenizer->EncodeAfterCut(" ab"), Ids{5});
  EXPECT_TRUE(tokenizer->BeginsWord(5));
  EXPECT_EQ(tokenizer->PieceId("ab"), 4);
  EXPECT_EQ(tokenizer->VocabularySize(), 6);
  EXPECT_THROW(tokenizer->Encode("\xff"), TextError);
}

TEST(SentencePiece, EveryBeginningOfAModelIsReadOrRefused) {
  const std::string model = Model();
  for (size_t size = 0; size < model.size(); ++size) {
    try {
      Open(std::string_view(model).substr(0, size))->Encode("ab ba");
    } catch (const TokenizerError&) {
    }
  }
}

}  // namespace
}  // namespace lmfusion
