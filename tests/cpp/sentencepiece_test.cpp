// The SentencePiece tokenizer, linked into the test, so that sanitizers see it too.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "sentencepiece_file.h"
#include "text/tokenizers/ordinary_ids.h"
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

TEST(SentencePiece, ControlAndUserDefinedPiecesAreNoOrdinaryIds) {
  const auto ordinary = [](const std::string& pieces) {
    const auto tokenizer = Open(TinySentencePieceModel(pieces));
    return dynamic_cast<const OrdinaryIds&>(*tokenizer).OrdinarySize();
  };
  EXPECT_EQ(ordinary(""), 6);
  EXPECT_EQ(ordinary(SentencePieceEntry("x", 0, 3) + SentencePieceEntry("y", 0, 4)), 6);
  EXPECT_EQ(ordinary(SentencePieceEntry("x", 0, 3) + SentencePieceEntry("z", -9)), 8);
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

// Pieces: kinds of their own, and fields of the trainer and the normalizer.
constexpr uint64_t kUserDefined = 4, kUnused = 5, kByte = 6, kControl = 3;

std::string Model(const std::string& pieces, const std::string& trainer = "",
                  const std::string& normalizer = "") {
  return TinySentencePieceModel(pieces) + ProtoBytes(2, trainer) + ProtoBytes(3, normalizer);
}

TEST(SentencePiece, CutsOnlyWhereNoPieceAndNoRuleReachesAcrossASpace) {
  const auto cuts = [](const std::string& model) { return Open(model)->LastCut("ab ab", 5) == 2; };
  EXPECT_TRUE(cuts(Model("")));
  EXPECT_TRUE(cuts(Model(SentencePieceEntry("x\u2581", 0, kControl))));
  EXPECT_FALSE(cuts(Model(SentencePieceEntry("b\u2581", -3))));
  EXPECT_FALSE(cuts(Model(SentencePieceEntry("b\u2581", -3) + SentencePieceEntry("a\u2581", -3))));
  EXPECT_FALSE(cuts(Model(SentencePieceEntry("b\u2581", -3, kUnused))));
  EXPECT_FALSE(cuts(Model(SentencePieceEntry("b\u2581", -3, kUserDefined))));
  EXPECT_FALSE(cuts(Model(SentencePieceEntry(" x", -3, kUserDefined))));
  EXPECT_FALSE(cuts(Model(SentencePieceEntry("x y", -3, kUserDefined))));
  EXPECT_TRUE(cuts(Model(SentencePieceEntry("xy", -3, kUserDefined))));
  EXPECT_FALSE(cuts(Model("", ProtoNumber(3, 1)))) << "a unigram model";
  EXPECT_FALSE(cuts(Model("", "\xc0\x01\x01"))) << "white space is a suffix (field 24)";
  EXPECT_FALSE(cuts(Model("", "", ProtoBytes(1, "my own rules"))));
  EXPECT_TRUE(cuts(Model("", "", ProtoBytes(1, "nmt_nfkc"))));
  EXPECT_FALSE(cuts(Model("", "", ProtoNumber(3, 0)))) << "no dummy prefix";
  EXPECT_TRUE(cuts(Model("", "", ProtoNumber(4, 0)))) << "spaces are not removed";
  EXPECT_FALSE(cuts(Model("", "", ProtoNumber(5, 0)))) << "spaces are not escaped";
  // Without the piece of a mark alone.
  EXPECT_FALSE(cuts(SentencePieceEntry("<unk>", 0, 2) + SentencePieceEntry("\u2581ab", -2) +
                    ProtoBytes(2, ProtoNumber(3, SentencePieceTraits::kBpe)) +
                    ProtoBytes(3, ProtoBytes(1, "identity"))));
}

TEST(SentencePiece, WithoutCutsEveryTextIsReadWhole) {
  const auto tokenizer = Open(Model("", "", ProtoNumber(3, 0)));
  EXPECT_EQ(tokenizer->Encode("ab ab"), (Ids{4, 5}));
  EXPECT_EQ(tokenizer->EncodeAfterCut(" ab"), tokenizer->Encode(" ab"));
  const auto cut = Open(Model(""));
  EXPECT_EQ(cut->EncodeAfterCut(""), cut->Encode(""));
  EXPECT_EQ(cut->EncodeAfterCut("ab"), Ids{5});
}

TEST(SentencePiece, PiecesAndTexts) {
  const auto tokenizer = Open(
      Model(SentencePieceEntry("<s>", 0, kControl) + SentencePieceEntry("\tx", 0, kUserDefined) +
            SentencePieceEntry(" y", 0, kUserDefined) + SentencePieceEntry("\u2581z", 0, kControl) +
            SentencePieceEntry("\x01", 0, kUserDefined)));
  EXPECT_EQ(tokenizer->VocabularySize(), 11);
  EXPECT_EQ(tokenizer->Piece(6), "<s>");
  for (const int32_t id : {1, 5, 7, 8}) EXPECT_TRUE(tokenizer->BeginsWord(id)) << id;
  for (const int32_t id : {0, 2, 4, 6, 9, 10}) EXPECT_FALSE(tokenizer->BeginsWord(id)) << id;
  EXPECT_EQ(tokenizer->Decode({5, 4, 1, 3}), "abab b");
  EXPECT_EQ(tokenizer->PieceId("no such piece"), -1);
  EXPECT_EQ(tokenizer->PieceId("<unk>"), 0);
  for (const int32_t id : {-1, 11}) {
    EXPECT_THROW(tokenizer->Piece(id), std::invalid_argument);
    EXPECT_THROW(tokenizer->Decode({5, id}), std::invalid_argument);
  }
}

TEST(SentencePiece, ABytePieceOfWhiteSpaceBeginsAWord) {
  std::string bytes;
  constexpr const char* kDigits = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    const std::string piece{'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'};
    bytes += SentencePieceEntry(piece, 0, kByte);
  }
  const auto tokenizer = Open(Model(bytes, "\x98\x02\x01"));  // byte_fallback, field 35
  EXPECT_EQ(tokenizer->Encode("abc"), (Ids{5, 6 + 'c'}));
  EXPECT_TRUE(tokenizer->BeginsWord(6 + ' '));
  EXPECT_FALSE(tokenizer->BeginsWord(6 + 'c'));
}

TEST(SentencePiece, FieldsOfOtherKindsArePassedOver) {
  const std::string eight_bytes = std::string(1, 9 << 3 | 1) + std::string(8, 'x');
  EXPECT_EQ(Open(TinySentencePieceModel(eight_bytes))->Encode("ab"), Ids{5});
  EXPECT_EQ(Open(TinySentencePieceModel(ProtoBytes(5, ProtoBytes(1, "x"))))->Encode("ab"), Ids{5});
  const std::string group(1, 9 << 3 | 3);
  EXPECT_THROW(Open(TinySentencePieceModel(group)), TokenizerError);
  EXPECT_THROW(Open("\x08" + std::string(11, '\xff')), TokenizerError);  // a number without end
}

TEST(SentencePiece, TablesOfWrongSizes) {
  const auto refused = [](const std::string& table) {
    EXPECT_THROW(Open(TinySentencePieceModel("", table)), TokenizerError);
  };
  std::string odd = Table();
  odd[0] = 1;  // 1,025 bytes are no whole units
  refused(odd);
  std::string few = Table();
  few[1] = 3;  // 768 bytes are less than the 256 units of the root
  refused(few);
  std::string unused = Table();  // a unit behind the root's that is unused leads nowhere
  unused[4 + 4 * 7 + 3] = '\xff';
  EXPECT_EQ(Open(TinySentencePieceModel("", unused))->Encode("ab"), Ids{5});
  // The root ends a match; its value, in unit 256, is the first text.
  std::string matches =
      std::string("\0\x8\0\0", 4) + std::string(2048, '\0') + Table().substr(1028);
  for (size_t unit = 1; unit < 512; ++unit) matches[4 + 4 * unit + 3] = '\x80';
  const uint32_t root = 256u << 10 | 1u << 8;
  std::memcpy(&matches[4], &root, sizeof root);
  EXPECT_NO_THROW(Open(TinySentencePieceModel("", matches)));
  matches[4 + 4 * 256] = 4;  // beyond the four bytes of texts
  refused(matches);
}

}  // namespace
}  // namespace lmfusion
