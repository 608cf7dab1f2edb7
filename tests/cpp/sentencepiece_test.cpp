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

// The size and the 256 empty units of a trie, then the texts "x" and "y".
std::string Table() {
  return std::string("\0\4\0\0", 4) + std::string(1024, '\0') + std::string("x\0y\0", 4);
}

TEST(SentencePiece, TablesThatLeadOutOfThemselvesAreRefused) {
  EXPECT_EQ(Open(TinySentencePieceModel("", Table()))->Encode("ab"), Ids{5});
  const auto refused = [](const std::string& table) {
    EXPECT_THROW(Open(TinySentencePieceModel("", table)), TokenizerError);
    // The table of the denormaliser, too.
    EXPECT_THROW(Open(TinySentencePieceModel(ProtoBytes(5, ProtoBytes(2, table)))), TokenizerError);
  };
  std::string far = Table();  // the root's children lie beyond the end
  far[4 + 3] = 0x7f;
  refused(far);
  std::string no_text = Table();  // a value beyond the texts
  no_text[4 + 1] = 0x01;          // the root ends a match, whose value is in unit 0
  no_text[4 + 0] = 0x04;
  refused(no_text);
  refused(Table() + "z");  // the last text does not end
  refused(Table().substr(0, 1028));
  refused("\1");
  std::string larger = Table();
  larger[1] = 8;
  refused(larger);
}

}  // namespace
}  // namespace lmfusion
