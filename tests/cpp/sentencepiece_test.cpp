// The SentencePiece tokenizer, linked into the test, so that sanitizers see it too.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "sentencepiece_file.h"
#include "text/tokenizers/sentencepiece_library.h"

namespace lmfusion {
namespace {

using Ids = std::vector<int32_t>;

std::shared_ptr<const Tokenizer> Open(std::string_view model) {
  std::shared_ptr<const Tokenizer> tokenizer;
  lmfusion_open_sentencepiece(model, &tokenizer);
  return tokenizer;
}

TEST(SentencePiece, MergesAndCuts) {
  const auto tokenizer = Open(TinySentencePieceModel());
  EXPECT_EQ(tokenizer->Encode("ab ab b"), (Ids{5, 5, 1, 3}));
  EXPECT_EQ(tokenizer->LastCut("ab ab", 5), 2u);
  EXPECT_EQ(tokenizer->EncodeAfterCut(" ab"), Ids{5});
  EXPECT_TRUE(tokenizer->BeginsWord(5));
  EXPECT_EQ(tokenizer->PieceId("ab"), 4);
  EXPECT_EQ(tokenizer->VocabularySize(), 6);
  EXPECT_THROW(tokenizer->Encode("\xff"), TextError);
}

TEST(SentencePiece, EveryBeginningOfAModelIsReadOrRefused) {
  const std::string model = TinySentencePieceModel();
  for (size_t size = 0; size < model.size(); ++size) {
    try {
      Open(std::string_view(model).substr(0, size))->Encode("ab ba");
    } catch (const TokenizerError&) {
    }
  }
}

}  // namespace
}  // namespace lmfusion
