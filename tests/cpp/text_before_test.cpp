// What stands before the texts of a call: a prompt and the utterances before, within their limits.
#include "text/stage/text_before.h"

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "lmfusion/errors.h"
#include "text/stage/text_stage.h"
#include "toy_text.h"

namespace lmfusion {
namespace {

using Words = std::vector<std::string>;

// A token a byte.
class Stage {
 public:
  explicit Stage(int64_t max_path_length, int64_t max_context_length = 512,
                 Join join = Join::kSpace)
      : stage_(std::make_shared<const ToyTokenizer>(Words{}), CasingByName("none"),
               Options(max_path_length, max_context_length, join)) {}

  std::string Before(const History& history) { return stage_.Before(history, &call_).text; }
  // The tokens of a candidate's path as text.
  std::string Path(const History& history, const std::string& context, const std::string& word,
                   Join join = Join::kSpace) {
    const TextBefore before = stage_.Before(history, &call_);
    return TextOf(stage_.Continuations({context}, {{word}}, join, &call_, before).paths.at(0));
  }
  // The same of a whole text and its end.
  std::string Whole(const History& history, const std::string& given) {
    const TextBefore before = stage_.Before(history, &call_);
    return TextOf(stage_.Texts({given}, true, &call_, before).paths.at(0));
  }
  uint64_t truncated() const { return call_.truncated_contexts; }

 private:
  static constexpr int32_t kEnd = '#';

  static std::string TextOf(const TokenPaths::Path& path) {
    std::string text;
    for (int32_t i = 0; i < path.prefix_size; ++i) text += static_cast<char>((*path.prefix)[i]);
    for (const int32_t token : path.tail) text += static_cast<char>(token);
    return text;
  }
  static TextStageOptions Options(int64_t max_path_length, int64_t max_context_length, Join join) {
    TextStageOptions options;
    options.end_token = kEnd;
    options.max_path_length = max_path_length;
    options.max_context_length = max_context_length;
    options.join = join;
    return options;
  }

  TextCall call_;
  TextStage stage_;
};

TEST(TextBefore, IsThePromptAndTheUtterances) {
  Stage stage(0);
  EXPECT_EQ(stage.Before({}), "");
  EXPECT_EQ(stage.Before({"Notes:", {}}), "Notes:");
  EXPECT_EQ(stage.Before({"Notes:", {"a b", "c"}}), "Notes: a b c");
  EXPECT_EQ(stage.Before({"", {"a b ", "\u3000c"}}), "a b \u3000c");
  EXPECT_EQ(stage.Path({"Notes:", {"a"}}, "b", "c"), "Notes: a b c");
  EXPECT_EQ(stage.Path({}, "b", "c"), "b c");
  EXPECT_EQ(stage.truncated(), 0u);
}

TEST(TextBefore, JoinsTheTextThatACandidateMakes) {
  Stage stage(0, 512, Join::kAuto);
  EXPECT_EQ(stage.Path({"the", {}}, ".", "cat", Join::kNone), "the .cat");
  EXPECT_EQ(stage.Path({"the", {}}, ".", "cat", Join::kSpace), "the. cat");
  EXPECT_EQ(stage.Path({"the", {}}, "", "."), "the.");
  EXPECT_EQ(stage.Path({"the", {}}, ". a", "cat", Join::kNone), "the. acat");
}

TEST(TextBefore, IsBeforeWholeTextsToo) {
  Stage stage(0);
  EXPECT_EQ(stage.Whole({"the", {}}, "cat"), "the cat#");
  EXPECT_EQ(stage.Whole({}, "cat"), "cat#");
}

TEST(TextBefore, DropsWholeUtterancesInBlocks) {
  Stage stage(0);
  // 1,024 tokens are kept at most; what is dropped grows in blocks of a quarter of them.
  const std::string hundred(100, 'x');
  const auto kept = [&](size_t count) {
    const std::string text = stage.Before({"", Words(count, hundred)});
    return (text.size() + 1) / 101;  // a space between two
  };
  EXPECT_EQ(kept(10), 10u);
  EXPECT_EQ(stage.truncated(), 0u);
  EXPECT_EQ(kept(11), 8u);  // 76 too many: 256 are dropped, which takes three
  EXPECT_EQ(kept(12), 9u);
  EXPECT_EQ(kept(13), 7u);  // 276 too many: 512, six
  EXPECT_EQ(stage.truncated(), 3u);
  EXPECT_EQ(stage.Before({"", {std::string(2000, 'x')}}), "");
}

TEST(TextBefore, FitsTheModelsPositions) {
  // 64 positions: 47 for a history and its context, of which a context may have 20.
  Stage stage(64, 20);
  EXPECT_EQ(stage.Before({std::string(27, 'p'), {}}).size(), 27u);
  try {
    stage.Before({std::string(28, 'p'), {}});
    ADD_FAILURE();
  } catch (const std::invalid_argument& error) {
    EXPECT_STREQ(error.what(),
                 "prompt has 28 tokens, and the model's positions leave 27 beside a text; make it "
                 "or max_context_length smaller");
  }
  EXPECT_EQ(stage.Before({"Notes:", {std::string(10, 'x'), std::string(10, 'y')}}),
            "Notes: " + std::string(10, 'x') + " " + std::string(10, 'y'));
  EXPECT_EQ(stage.truncated(), 0u);
  EXPECT_EQ(stage.Before({"Notes:", {std::string(12, 'x'), std::string(10, 'y')}}),
            "Notes: " + std::string(10, 'y'));
  EXPECT_EQ(stage.truncated(), 1u);
  // A context of 40 tokens after a history of 27 keeps at most 20 of its own.
  const std::string path = stage.Path({std::string(27, 'p'), {}}, std::string(40, 'c'), "w");
  EXPECT_EQ(path.substr(0, 27), std::string(27, 'p'));
  EXPECT_LE(path.size(), 27u + 20 + 2);
  EXPECT_EQ(path.substr(path.size() - 3), "c w");
}

TEST(TextBefore, NamesTheTextThatIsNotUtf8) {
  Stage stage(0);
  const auto error = [&](const History& history) {
    try {
      stage.Before(history);
    } catch (const TextError& wrong) {
      return std::string(wrong.what());
    }
    return std::string();
  };
  EXPECT_EQ(error({"\xff", {}}).rfind("prompt: ", 0), 0u);
  EXPECT_EQ(error({"", {"a", "\xff"}}).rfind("context[1]: ", 0), 0u);
}

}  // namespace
}  // namespace lmfusion
