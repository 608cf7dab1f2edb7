#include "text/stage/text_stage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lmfusion/errors.h"
#include "toy_text.h"

namespace lmfusion {
namespace {

using Words = std::vector<std::string>;

// Every case: with merges over joins, with and without start token, dummy prefix and end of word,
// with contexts cut after 2, 5 or no tokens.
struct Case {
  bool start_token, dummy_prefix;
  Boundary boundary;
  int64_t max_context_length;
};

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const bool start : {true, false}) {
    for (const bool prefix : {true, false}) {
      for (const Boundary boundary : {Boundary::kPlain, Boundary::kWord}) {
        for (const int64_t length : {1, 2, 5, 9, 512}) {
          cases.push_back({start, prefix, boundary, length});
        }
      }
    }
  }
  return cases;
}

class Toy {
 public:
  explicit Toy(Case options = {true, false, Boundary::kPlain, 512},
               const std::string& casing = "none", int64_t max_path_length = 0)
      : options_(options),
        tokenizer_(std::make_shared<const ToyTokenizer>(
            Words{"a", "b", "c", " ", "ab", "bc", " a", " ab", " c", "b a", "b c", "abc", "  "},
            options.dummy_prefix)),
        model_(*tokenizer_),
        stage_(tokenizer_, CasingByName(casing), Options(max_path_length)) {}

  const TextStage& stage() const { return stage_; }
  const ToyLM& model() const { return model_; }

  double LogProb(const std::string& context, const std::string& word) const {
    TextCall call;
    return model_.Score(stage_.Continuations({context}, {{word}}, Join::kSpace, &call)).at(0);
  }
  double Text(const std::string& text, bool eos = false) const {
    TextCall call;
    return model_.Score(stage_.Texts({text}, eos, &call)).at(0);
  }

  // The plain definition of L: the text tokenized from scratch, and each of its tokens read after
  // the start token and the newest tokens before it.
  double Oracle(const std::string& text) const {
    const std::vector<int32_t> tokens = tokenizer_->Encode(text);
    double sum = 0;
    for (size_t n = 0; n < tokens.size(); ++n) {
      if (n > 0 || options_.start_token) sum += model_.LogProb(Read(tokens, n), tokens[n]);
    }
    if (options_.boundary == Boundary::kWord && !text.empty() && text.back() != ' ') {
      sum += model_.WordEnd(Read(tokens, tokens.size()));
    }
    return sum;
  }
  // log p(the end token after the text).
  double OracleEnd(const std::string& text) const {
    const std::vector<int32_t> tokens = tokenizer_->Encode(text);
    return model_.LogProb(Read(tokens, tokens.size()), model_.end_token());
  }
  double OracleWordEnd(const std::string& text) const {
    const std::vector<int32_t> tokens = tokenizer_->Encode(text);
    return model_.WordEnd(Read(tokens, tokens.size()));
  }

 private:
  static constexpr int32_t kStart = 40;

  TextStageOptions Options(int64_t max_path_length) const {
    TextStageOptions options;
    options.start_token = options_.start_token ? kStart : -1;
    options.end_token = model_.end_token();
    options.boundary = options_.boundary;
    options.max_context_length = options_.max_context_length;
    options.max_path_length = max_path_length;
    return options;
  }

  // What token n is read after.
  uint64_t Read(const std::vector<int32_t>& tokens, size_t n) const {
    const auto most = static_cast<size_t>(options_.max_context_length);
    const size_t block = std::max<size_t>(1, most / 4);
    size_t dropped = 0;
    while (n - dropped > most) dropped += block;
    uint64_t hash = options_.start_token ? HashModel::Extend(1, kStart) : 1;
    for (size_t i = dropped; i < n; ++i) hash = HashModel::Extend(hash, tokens[i]);
    return hash;
  }

  const Case options_;
  const std::shared_ptr<const ToyTokenizer> tokenizer_;
  const ToyLM model_;
  const TextStage stage_;
};

std::string RandomText(std::mt19937* random, size_t longest) {
  static const Words kLetters = {"a", "b", "c", " ", "a", "b", " ", "é"};
  std::string text;
  for (size_t n = (*random)() % (longest + 1); n > 0; --n) text += kLetters[(*random)() % 8];
  return text;
}

std::string Join(const std::string& context, const std::string& word) {
  const bool space = !context.empty() && context.back() != ' ' && !word.empty() && word[0] != ' ';
  return context + (space ? " " : "") + word;
}

TEST(TextStage, ACandidateIsTheDifferenceOfTwoWholeTexts) {
  std::mt19937 random(1);
  for (const Case& options : AllCases()) {
    const Toy toy(options);
    for (int round = 0; round < 60; ++round) {
      Words contexts;
      std::vector<Words> words;
      for (int i = 0; i < 3; ++i) {
        contexts.push_back(i == 2 ? contexts[0] : RandomText(&random, 14));
        words.emplace_back();
        for (size_t j = random() % 4; j > 0; --j) words[i].push_back(RandomText(&random, 6));
        if (!words[i].empty()) words[i].push_back(words[i][0]);
      }
      TextCall call;
      const TokenPaths paths = toy.stage().Continuations(contexts, words, Join::kSpace, &call);
      const std::vector<double> scores = toy.model().Score(paths);
      size_t at = 0;
      for (size_t i = 0; i < contexts.size(); ++i) {
        for (const std::string& word : words[i]) {
          const std::string text = Join(contexts[i], word);
          ASSERT_LT(at, scores.size());
          ASSERT_NEAR(scores[at++], toy.Oracle(text) - toy.Oracle(contexts[i]), 1e-9)
              << "'" << contexts[i] << "' + '" << word << "', " << options.max_context_length;
        }
      }
      ASSERT_EQ(at, scores.size());
    }
  }
}

TEST(TextStage, WholeTextsAndEndings) {
  std::mt19937 random(2);
  const Words endings = {".", "", " a", "b a", "?"};
  for (const Case& options : AllCases()) {
    const Toy toy(options);
    for (int round = 0; round < 30; ++round) {
      const std::string text = RandomText(&random, 14);
      ASSERT_NEAR(toy.Text(text), toy.Oracle(text), 1e-9) << text;
      const bool word = options.boundary == Boundary::kWord && !text.empty() && text.back() != ' ';
      const double word_end = word ? toy.OracleWordEnd(text) : 0;
      if (options.start_token || !text.empty()) {
        const double end = toy.OracleEnd(text);
        ASSERT_NEAR(toy.Text(text, true), toy.Oracle(text) - word_end + end, 1e-9) << text;
      }
      TextCall call;
      const std::vector<double> scores =
          toy.model().Score(toy.stage().Endings({text}, endings, &call));
      ASSERT_EQ(scores.size(), endings.size());
      for (size_t j = 0; j < endings.size(); ++j) {
        if (endings[j].empty() && !options.start_token && text.empty()) continue;
        const double expected = endings[j].empty()
                                    ? toy.OracleEnd(text) - word_end
                                    : toy.Oracle(text + endings[j]) - toy.Oracle(text);
        ASSERT_NEAR(scores[j], expected, 1e-9) << "'" << text << "' + '" << endings[j] << "'";
      }
    }
  }
}

TEST(TextStage, WordsOfATextSumToIt) {
  std::mt19937 random(3);
  for (const Case& options : AllCases()) {
    const Toy toy(options);
    for (int round = 0; round < 30; ++round) {
      const std::string text = RandomText(&random, 30);
      double sum = 0;
      size_t begin = 0;
      while (begin < text.size()) {
        // Any split the join rule does not change: before a space or after one.
        size_t end = std::min(text.size(), begin + 1 + random() % 8);
        while (end < text.size() && text[end] != ' ' && text[end - 1] != ' ') ++end;
        sum += toy.LogProb(text.substr(0, begin), text.substr(begin, end - begin));
        begin = end;
      }
      ASSERT_NEAR(sum, toy.Text(text), 1e-9) << text;
    }
  }
}

// p(the text ends) and of all words of up to `letters` letters, after a context.
double SumOfEnds(const TextStage& stage, const ToyLM& model, const std::string& context,
                 int letters) {
  Words words = {""}, all;
  for (int n = 0; n < letters; ++n) {
    Words longer;
    for (const std::string& word : words) {
      for (const char* letter : {"a", "b"}) longer.push_back(word + letter);
    }
    words = longer;
    all.insert(all.end(), words.begin(), words.end());
  }
  TextCall call;
  double sum = std::exp(model.Score(stage.Endings({context}, {""}, &call)).at(0));
  for (const double score :
       model.Score(stage.Continuations({context}, {all}, Join::kSpace, &call))) {
    sum += std::exp(score);
  }
  return sum;
}

TEST(TextStage, CompleteWordsSumToAtMostOne) {
  // Every string of the first has one tokenization, so its words take all the probability there
  // is but that of longer ones; with the second some goes to tokenizations that no text has.
  const auto letters = std::make_shared<const ToyTokenizer>(Words{"a", "b", " a", " b"});
  const auto merged =
      std::make_shared<const ToyTokenizer>(Words{"a", "b", " a", " b", "ab", " ab", "ba"});
  for (const auto& tokenizer : {letters, merged}) {
    const ToyLM model(*tokenizer);
    TextStageOptions options;
    options.start_token = 40;
    options.end_token = model.end_token();
    options.boundary = Boundary::kWord;
    const TextStage stage(tokenizer, CasingByName("none"), options);
    for (const char* context : {"ab", "a b ab", "b"}) {
      const double sum = SumOfEnds(stage, model, context, 12);
      EXPECT_LE(sum, 1 + 1e-9) << context;
      EXPECT_GT(sum, tokenizer == letters ? 0.98 : 0.3) << context;
    }
  }
}

TEST(TextStage, VariantsAreAlternativesOfOneCandidate) {
  const Case options{true, false, Boundary::kPlain, 512};
  const Toy toy(options, "variants"), given(options);
  TextCall call;
  const TokenPaths paths =
      toy.stage().Continuations({"b"}, {{"ab", "AB", "."}}, Join::kSpace, &call);
  EXPECT_EQ(paths.candidates, 3);
  EXPECT_EQ(paths.candidate_of, (std::vector<int32_t>{0, 0, 0, 1, 2}));
  const std::vector<double> scores = toy.model().Score(paths);
  double sum = 0;
  for (const char* form : {"b ab", "b Ab", "b AB"}) {
    sum += std::exp(given.Oracle(form) - given.Oracle("b"));
  }
  EXPECT_NEAR(scores[0], std::log(sum), 1e-9);
  EXPECT_NEAR(scores[1], given.Oracle("b AB") - given.Oracle("b"), 1e-9);
}

TEST(TextStage, ACasingMayChangeTheContext) {
  // The last letter of the context depends on the candidate, as with the truecasers.
  const auto casing = CasingFromFunction([](const std::string& text) {
    std::string cased = text;
    if (text.back() == 'a') cased[text.find_last_of(' ') - 1] = 'c';
    return cased;
  });
  const auto tokenizer =
      std::make_shared<const ToyTokenizer>(Words{"a", "b", " a", "b a", "c", " c"});
  const ToyLM model(*tokenizer);
  TextStageOptions options;
  options.start_token = 40;
  const TextStage cased(tokenizer, casing, options);
  const TextStage given(tokenizer, CasingByName("none"), options);
  TextCall call;
  const std::vector<double> scores =
      model.Score(cased.Continuations({"a b"}, {{"b", "a", "b"}}, Join::kSpace, &call));
  const std::vector<double> expected =
      model.Score(given.Continuations({"a b", "a c"}, {{"b"}, {"a"}}, Join::kSpace, &call));
  EXPECT_NEAR(scores[0], expected[0], 1e-9);
  EXPECT_NEAR(scores[1], expected[1], 1e-9);
  EXPECT_NEAR(scores[2], expected[0], 1e-9);
}

TEST(TextStage, ManyCandidates) {
  const Toy toy;
  Words words;
  std::mt19937 random(4);
  for (int i = 0; i < 100000; ++i) words.push_back(RandomText(&random, 8));
  TextCall call;
  const std::vector<double> scores =
      toy.model().Score(toy.stage().Continuations({"abc b"}, {words}, Join::kSpace, &call));
  ASSERT_EQ(scores.size(), words.size());
  const double context = toy.Oracle("abc b");
  for (size_t i = 0; i < words.size(); i += 97) {
    ASSERT_NEAR(scores[i], toy.Oracle(Join("abc b", words[i])) - context, 1e-9) << words[i];
  }
}

TEST(TextStage, AWordOfAMegabyte) {
  const Toy toy;
  TextCall call;
  const std::string word(1 << 20, 'x');
  const TokenPaths paths = toy.stage().Continuations({"c"}, {{word}}, Join::kSpace, &call);
  size_t scored = 0;
  for (const TokenPaths::Path& path : paths.paths) {
    ASSERT_LE(path.size(), 1 + 512 + 512 / 4);
    scored += path.size() - path.scored_begin;
  }
  EXPECT_EQ(scored, word.size() + 1);  // the space before it too
  EXPECT_EQ(call.truncated_contexts, 1u);
}

std::string ErrorOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const TextError& error) {
    return error.what();
  }
  return "no TextError";
}

TEST(TextStage, NamesTheTextThatIsNotUtf8) {
  const Toy toy;
  TextCall call;
  const auto error = [&](const Words& contexts, const std::vector<Words>& words) {
    return ErrorOf([&] { toy.stage().Continuations(contexts, words, Join::kSpace, &call); });
  };
  EXPECT_EQ(error({"a", "a\xff"}, {{"a"}, {}}).rfind("contexts[1]: ", 0), 0u);
  EXPECT_EQ(error({"a", "b"}, {{"a"}, {"b", "\xc3"}}).rfind("candidate_words[1][1]: ", 0), 0u);
  // A surrogate, and two halves that are no texts although their join is one.
  EXPECT_EQ(error({"a"}, {{"\xed\xa0\x80"}}).rfind("candidate_words[0][0]: ", 0), 0u);
  EXPECT_EQ(error({"\xc3"}, {{"\xa9"}}).rfind("contexts[0]: ", 0), 0u);
  EXPECT_EQ(ErrorOf([&] { toy.stage().Texts({"\xff"}, false, &call); }).rfind("texts[0]: ", 0), 0u);
  EXPECT_EQ(ErrorOf([&] {
              toy.stage().Endings({"a"}, {".", "\xff"}, &call);
            }).rfind("endings[1]: ", 0),
            0u);
}

TEST(TextStage, NulIsACharacter) {
  const Toy toy;
  const std::string word("a\0b", 3);
  EXPECT_NEAR(toy.LogProb("c", word), toy.Oracle("c " + word) - toy.Oracle("c"), 1e-9);
  EXPECT_NE(toy.LogProb("c", word), toy.LogProb("c", "a"));
}

TEST(TextStage, CountsTruncatedContextsOnce) {
  const Toy toy({true, false, Boundary::kPlain, 8});
  TextCall call;
  const std::string eight = "c c c c c c c c";  // tokens: c and seven " c"
  toy.stage().Continuations({eight}, {{"c", "c"}}, Join::kSpace, &call);
  EXPECT_EQ(call.truncated_contexts, 0u);
  toy.stage().Continuations({eight + " c", "c"}, {{"c", "c"}, {"c"}}, Join::kSpace, &call);
  EXPECT_EQ(call.truncated_contexts, 1u);
  // The cut moves by a quarter of 8: the ninth and tenth token are read after two less.
  const auto prefix_of = [&](const std::string& context) {
    return toy.stage()
        .Continuations({context}, {{"c"}}, Join::kSpace, &call)
        .paths.at(0)
        .prefix_size;
  };
  EXPECT_EQ(prefix_of(eight), 1 + 8);
  EXPECT_EQ(prefix_of(eight + " c"), 1 + 7);
  EXPECT_EQ(prefix_of(eight + " c c"), 1 + 8);
  EXPECT_EQ(prefix_of(eight + " c c c"), 1 + 7);
}

TEST(TextStage, RefusesPathsTheModelCannotTake) {
  const Toy toy({true, false, Boundary::kPlain, 512}, "none", 6);
  TextCall call;
  EXPECT_NO_THROW(toy.stage().Continuations({"c c c c"}, {{"c"}}, Join::kSpace, &call));
  try {
    toy.stage().Continuations({"c c c c"}, {{"c", "c c"}}, Join::kSpace, &call);
    FAIL();
  } catch (const std::invalid_argument& error) {
    const std::string expected =
        "candidate_words[0][1] needs a path of 7 tokens, the model takes 6";
    EXPECT_EQ(std::string(error.what()).substr(0, expected.size()), expected);
  }
}

TEST(TextStage, RefusesAnEndTokenThereIsNot) {
  const auto tokenizer = std::make_shared<const ToyTokenizer>(Words{"a"});
  const TextStage stage(tokenizer, CasingByName("none"), {});
  TextCall call;
  EXPECT_THROW(stage.Texts({"a"}, true, &call), std::invalid_argument);
  EXPECT_THROW(stage.Endings({"a"}, {".", ""}, &call), std::invalid_argument);
  EXPECT_EQ(stage.Endings({"a"}, {}, &call).candidates, 0);
  EXPECT_THROW(TextStage(nullptr, CasingByName("none"), {}), std::invalid_argument);
  EXPECT_THROW(TextStage(tokenizer, nullptr, {}), std::invalid_argument);
}

TEST(TextStage, CostsWhatIsNew) {
  std::vector<uint64_t> costs;
  for (const int length : {10, 100, 400}) {
    const Toy toy;
    std::string context = "abc";
    for (int i = 1; i < length; ++i) context += i % 2 == 0 ? " abc" : " c";
    TextCall first, next;
    toy.stage().Continuations({context}, {{"abc", "c"}}, Join::kSpace, &first);
    EXPECT_GE(first.bytes_tokenized, context.size());
    // The hypothesis has grown by a word; twenty words may follow.
    toy.stage().Continuations({context + " abc"}, {Words(20, "abc")}, Join::kSpace, &next);
    costs.push_back(next.bytes_tokenized);
  }
  EXPECT_EQ(costs[0], costs[1]);
  EXPECT_EQ(costs[1], costs[2]);
  EXPECT_LE(costs[0], 21 * 8u);  // each new word with what comes before it up to a cut
}

// Marks where a candidate begins. Counts the contexts it cases.
class Marking final : public LeftToRightCasing {
 public:
  explicit Marking(std::string mark) : mark_(std::move(mark)) {}
  std::string Context(std::string_view context) const override {
    ++contexts;
    return std::string(context);
  }
  void Append(std::string_view word, std::string* text) const override { (*text += mark_) += word; }
  mutable int contexts = 0;

 private:
  const std::string mark_;
};

TEST(TextStage, AUsersLeftToRightCasingCasesAContextOnce) {
  const auto tokenizer = std::make_shared<const ToyTokenizer>(Words{"a", "b", "c", " ", "bc"});
  const auto casing = std::make_shared<const Marking>("c");
  const TextStage stage(tokenizer, casing, {});
  TextCall call;
  const TokenPaths paths =
      stage.Continuations({"ab", "b"}, {{"a", "b", "a"}, {"a"}}, Join::kSpace, &call);
  EXPECT_EQ(paths.candidates, 4);
  EXPECT_EQ(casing->contexts, 2);
  EXPECT_EQ(stage.Cased("ab", "a", Join::kSpace).text, "abc a");
  EXPECT_EQ(stage.Cased("ab", "a", Join::kSpace).context_bytes, 2u);

  for (const char* mark : {"\xff", "\x80"}) {  // no UTF-8
    const TextStage wrong(tokenizer, std::make_shared<const Marking>(mark), {});
    EXPECT_ANY_THROW(wrong.Continuations({"ab"}, {{"a"}}, Join::kSpace, &call)) << mark;
  }
  EXPECT_EQ(stage.Continuations({"ab"}, {{"a"}}, Join::kSpace, &call).candidates, 1);
}

}  // namespace
}  // namespace lmfusion
