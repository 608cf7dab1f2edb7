// Casings and tokenizers of a user's own, wrong ones and odd ones, behind the text stage.
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "lmfusion/errors.h"
#include "text/stage/text_stage.h"
#include "toy_text.h"

namespace lmfusion {
namespace {

using Words = std::vector<std::string>;
using Ids = std::vector<int32_t>;

// A casing that says what it is told to.
class Says final : public Casing {
 public:
  explicit Says(CasedText cased) : cased_(std::move(cased)) {}
  CasedText Apply(std::string_view, std::string_view) const override { return cased_; }

 private:
  const CasedText cased_;
};

// What a call with one candidate says of the casing.
template <class Wrong>
std::string ErrorOf(std::shared_ptr<const Casing> casing) {
  const TextStage stage(std::make_shared<const ToyTokenizer>(Words{}), std::move(casing), {});
  TextCall call;
  try {
    stage.Continuations({"a"}, {{"b"}}, Join::kSpace, &call);
  } catch (const Wrong& error) {
    return error.what();
  }
  return "";
}

TEST(UsersCasing, PlacesTheCandidateAtACharacter) {
  using Invalid = std::invalid_argument;
  const auto says = [](const char* text, size_t begin) {
    return ErrorOf<Invalid>(std::make_shared<const Says>(CasedText{text, begin}));
  };
  EXPECT_EQ(says("a b", 3), "");
  EXPECT_EQ(says("a b", 4),
            "candidate_words[0][0]: the casing put the candidate at byte 4 of 3, which begins no "
            "character");
  EXPECT_EQ(
      says("aé", 2).find("candidate_words[0][0]: the casing put the candidate at byte 2 of 3"), 0u);
  EXPECT_EQ(ErrorOf<TextError>(std::make_shared<const Says>(CasedText{"\xff", 0}))
                .find("candidate_words[0][0]: "),
            0u);
}

TEST(UsersCasing, ContextsAreCountedOnceWhereTheyAreTruncated) {
  TextStageOptions options;
  options.max_context_length = 4;
  const TextStage stage(std::make_shared<const ToyTokenizer>(Words{}), CasingByName("variants"),
                        options);
  TextCall call;
  stage.Continuations({"abcd", "abcdefgh"}, {{"x"}, {"x", "y"}}, Join::kNone, &call);
  EXPECT_EQ(call.truncated_contexts, 1u);
}

TEST(TextStage, NoWordEndsWhereATextDoes) {
  TextStageOptions options;
  options.boundary = Boundary::kWord;
  options.end_token = 300;
  const TextStage stage(std::make_shared<const ToyTokenizer>(Words{}), CasingByName("none"),
                        options);
  TextCall call;
  const TextBefore before = stage.Before({"the", {}}, &call);
  EXPECT_TRUE(stage.Texts({"cat"}, false, &call, before).paths.at(0).ends_word);
  EXPECT_FALSE(stage.Texts({"cat"}, true, &call, before).paths.at(0).ends_word);
}

TEST(UsersCasing, ErrorsNameTheCandidate) {
  EXPECT_EQ(ErrorOf<std::invalid_argument>(CasingFromFunction([](const std::string&) {
              return std::string("x");
            })).find("candidate_words[0][0]: the casing function changed the text"),
            0u);
  EXPECT_EQ(ErrorOf<TextError>(CasingFromFunction([](const std::string&) {
              return std::string("a \xff");
            })).find("candidate_words[0][0]: "),
            0u);
}

// A token a byte, but for "c " at the end of a text, which is one: what ends a context is read in
// another way than the same letters before a word.
class ReadsEndsInAnotherWay final : public Tokenizer {
 public:
  static constexpr int32_t kEnd = 256;
  Ids Encode(std::string_view text) const override {
    const bool end = text.size() >= 2 && text.substr(text.size() - 2) == "c ";
    Ids ids;
    for (const char c : text.substr(0, text.size() - (end ? 2 : 0))) {
      ids.push_back(static_cast<unsigned char>(c));
    }
    if (end) ids.push_back(kEnd);
    return ids;
  }
  size_t LastCut(std::string_view text, size_t at) const override {
    for (size_t c = std::min(at, text.size()); c > 0; --c) {
      // Before a space with letters on both sides.
      if (c + 1 < text.size() && text[c] == ' ' && text[c - 1] != ' ' && text[c + 1] >= 'a')
        return c;
    }
    return 0;
  }
  bool BeginsWord(int32_t) const override { return false; }
  std::string Piece(int32_t) const override { return ""; }
  int32_t PieceId(std::string_view) const override { return -1; }
  int32_t VocabularySize() const override { return 257; }
};

TEST(UsersTokenizer, MayReadTheEndOfAContextInAnotherWay) {
  const auto tokenizer = std::make_shared<const ReadsEndsInAnotherWay>();
  TextStageOptions options;
  options.start_token = 255;
  const TextStage stage(tokenizer, CasingByName("none"), options);
  // The cut of "a c " lies before or behind the c, as the next letter has it.
  const std::string context = "a c ";
  const Words words = {"a", "1", "b", "2"};
  TextCall call;
  const TokenPaths paths = stage.Continuations({context}, {words}, Join::kSpace, &call);
  // Two paths a word, the text's and what is left of the context's tokens, by the definition.
  ASSERT_EQ(paths.paths.size(), 2 * words.size());
  const Ids of_context = tokenizer->Encode(context);
  for (size_t i = 0; i < paths.paths.size(); ++i) {
    const TokenPaths::Path& path = paths.paths[i];
    const Ids of_text = tokenizer->Encode(context + words[i / 2]);
    Ids ids(path.prefix->begin(), path.prefix->begin() + path.prefix_size);
    ids.insert(ids.end(), path.tail.begin(), path.tail.end());
    EXPECT_EQ(ids.at(0), 255);
    ids.erase(ids.begin());
    EXPECT_EQ(path.sign, i % 2 == 0 ? 1 : -1);
    EXPECT_EQ(ids, path.sign > 0 ? of_text : of_context) << words[i / 2];
    EXPECT_EQ(path.scored_begin, 1 + 2) << words[i / 2];  // "a" and the space are in both
  }
}

}  // namespace
}  // namespace lmfusion
