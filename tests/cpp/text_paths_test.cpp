// The paths that the text stage makes: what they share, where they are cut, who may ask for them.

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "text/stage/text_stage.h"
#include "toy_text.h"

namespace lmfusion {
namespace {

using Words = std::vector<std::string>;
using Tokens = std::vector<int32_t>;

constexpr int32_t kStart = 400;

const Words kPieces = {"a", "b", "c", " ", "ab", "bc", " a", " ab", " c", "b a", "b c", "  "};

// Like a tokenizer of which only a function is known.
class NoCuts final : public ToyTokenizer {
 public:
  using ToyTokenizer::ToyTokenizer;
  size_t LastCut(std::string_view, size_t) const override { return 0; }
};

TextStageOptions Options(int64_t max_context_length, Boundary boundary = Boundary::kPlain) {
  TextStageOptions options;
  options.start_token = kStart;
  options.max_context_length = max_context_length;
  options.boundary = boundary;
  return options;
}

Tokens Whole(const TokenPaths::Path& path) {
  Tokens tokens;
  if (path.prefix) tokens.assign(path.prefix->begin(), path.prefix->begin() + path.prefix_size);
  tokens.insert(tokens.end(), path.tail.begin(), path.tail.end());
  return tokens;
}

Words RandomTexts(uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  Words texts;
  while (texts.size() < count) {
    std::string text;
    for (size_t n = random() % 16; n > 0; --n) text += "abc ab "[random() % 7];
    texts.push_back(text);
  }
  return texts;
}

TEST(TextPaths, CandidatesOfAContextShareItsTokens) {
  for (const int64_t length : {512, 4}) {  // whole, and cut
    const TextStage stage(std::make_shared<ToyTokenizer>(kPieces), CasingByName("none"),
                          Options(length));
    TextCall call;
    const TokenPaths paths =
        stage.Continuations({"c c c c c c"}, {{"a", "c", "ab"}}, Join::kSpace, &call);
    ASSERT_EQ(paths.paths.size(), 3u);
    for (const TokenPaths::Path& path : paths.paths) {
      EXPECT_EQ(path.prefix, paths.paths[0].prefix);
      EXPECT_EQ(path.prefix_size, static_cast<int32_t>(path.prefix->size()));
      EXPECT_EQ(path.scored_begin, path.prefix_size);
    }
  }
}

// Digits are tokens of their own. At most 8 of context: the cut moves by 2.
TEST(TextPaths, ACandidateInWhichTheCutMovesIsTwoPaths) {
  const ToyTokenizer tokenizer({"1", "2", "3", "4", "5", "6", "7", "8", "9", " "});
  const TextStage stage(std::make_shared<ToyTokenizer>(tokenizer), CasingByName("none"),
                        Options(8));
  TextCall call;
  const auto ids = [&tokenizer](const std::string& text) {
    Tokens tokens = tokenizer.Encode(text);
    tokens.insert(tokens.begin(), kStart);
    return tokens;
  };
  const TokenPaths paths = stage.Continuations({"1234567"}, {{" 89"}}, Join::kSpace, &call);
  ASSERT_EQ(paths.paths.size(), 2u);
  EXPECT_EQ(Whole(paths.paths[0]), ids("1234567 8"));
  EXPECT_EQ(paths.paths[0].scored_begin, 8);  // " " and "8", after 7 and 8 tokens
  EXPECT_EQ(Whole(paths.paths[1]), ids("34567 89"));
  EXPECT_EQ(paths.paths[1].scored_begin, 8);  // "9", after 9 tokens of which 2 are left out
  EXPECT_EQ(call.truncated_contexts, 1u);
}

TEST(TextPaths, CutsChangeNothing) {
  for (const int64_t length : {512, 5}) {
    const ToyTokenizer with_cuts(kPieces);
    const ToyLM model(with_cuts);
    const TextStageOptions options = Options(length, Boundary::kWord);
    const TextStage with(std::make_shared<ToyTokenizer>(kPieces), CasingByName("none"), options);
    const TextStage without(std::make_shared<NoCuts>(kPieces), CasingByName("none"), options);
    const Words contexts = RandomTexts(1, 200);
    const std::vector<Words> words(contexts.size(), {"a", "c ab", "", " b"});
    TextCall call;
    const std::vector<double> a =
        model.Score(with.Continuations(contexts, words, Join::kSpace, &call));
    const std::vector<double> b =
        model.Score(without.Continuations(contexts, words, Join::kSpace, &call));
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-9) << contexts[i / 4];
  }
}

// An ending continues the very text that Texts scores: it neither changes its case nor is cased.
TEST(TextPaths, EndingsFollowTheCasedText) {
  const auto tokenizer = std::make_shared<ToyTokenizer>(kPieces);
  const ToyLM model(*tokenizer);
  const TextStage sentence(tokenizer, CasingByName("sentence"), Options(512));
  const TextStage none(tokenizer, CasingByName("none"), Options(512));
  TextCall call;
  const Words endings = {"?", "n i"};
  EXPECT_EQ(model.Score(sentence.Endings({"so am i"}, endings, &call)),
            model.Score(none.Endings({"So am I"}, endings, &call)));
}

TEST(TextPaths, ACandidateBeginsAtACharacter) {
  class Wrong final : public Casing {
   public:
    CasedText Apply(std::string_view, std::string_view) const override { return {"é", 1}; }
  };
  const TextStage stage(std::make_shared<ToyTokenizer>(kPieces), std::make_shared<Wrong>(),
                        Options(512));
  TextCall call;
  EXPECT_THROW(stage.Continuations({"a"}, {{"b"}}, Join::kSpace, &call), std::invalid_argument);
  EXPECT_THROW(TextStage(std::make_shared<ToyTokenizer>(kPieces), CasingByName("none"), Options(0)),
               std::invalid_argument);
}

TEST(TextPaths, ThreadsGetTheSame) {
  const auto tokenizer = std::make_shared<ToyTokenizer>(kPieces);
  const ToyLM model(*tokenizer);
  const auto work = [&model](const TextStage& stage, uint32_t seed) {
    std::vector<double> all;
    for (const std::string& context : RandomTexts(seed, 300)) {
      TextCall call;
      for (const double score :
           model.Score(stage.Continuations({context}, {{"a", "b c"}}, Join::kSpace, &call))) {
        all.push_back(score);
      }
    }
    return all;
  };
  const TextStage shared(tokenizer, CasingByName("none"), Options(9, Boundary::kWord));
  std::vector<std::vector<double>> got(4);
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] { got[i] = work(shared, i % 2); });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint32_t i = 0; i < 4; ++i) {
    const TextStage alone(tokenizer, CasingByName("none"), Options(9, Boundary::kWord));
    EXPECT_EQ(got[i], work(alone, i % 2));
  }
}

}  // namespace
}  // namespace lmfusion
