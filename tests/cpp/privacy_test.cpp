// What one caller can learn of another's texts, by counters, by what is left in slots, or by
// errors: nothing (SECURITY.md).

#include <gtest/gtest.h>

#include <cmath>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cache/path_scorer.h"
#include "hash_lm.h"
#include "lmfusion/casing.h"
#include "lmfusion/truecaser.h"
#include "scored_paths.h"
#include "text/stage/text_stage.h"
#include "toy_text.h"
#include "truecaser_file.h"

namespace lmfusion {
namespace {

// All that a caller sees of its call but the scores.
struct Seen {
  uint64_t computed, reused, forwards, report;
  std::vector<std::vector<bool>> reused_tokens;
  bool operator==(const Seen& other) const {
    return computed == other.computed && reused == other.reused && forwards == other.forwards &&
           report == other.report && reused_tokens == other.reused_tokens;
  }
};

Seen CallSeen(PathScorer& scorer, const std::vector<Tokens>& texts, const std::string& by) {
  const std::vector<int32_t> begins = LastTokens(texts, 1);
  const Stats before = StatsOf(scorer);
  CallReport report;
  ExpectRight(texts, begins, scorer.Score(Paths(texts, begins), by, &report));
  const Stats after = StatsOf(scorer);
  return {after.tokens_computed - before.tokens_computed,
          after.tokens_reused - before.tokens_reused, after.forwards - before.forwards,
          report.tokens_computed, report.reused};
}

// Texts of two tokens at least, all of the same shape as `texts` where `other`, with other tokens.
std::vector<Tokens> SomeTexts(std::mt19937& random, bool other = false) {
  std::vector<Tokens> texts = RandomTexts(random, 8, 12);
  for (Tokens& text : texts) {
    text.push_back(5);
    if (!other) continue;
    for (int32_t& token : text) token = (token + 17) % HashModel::kVocabulary;
  }
  return texts;
}

TEST(Namespaces, DoNotShowInEachOthersCounters) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto shared = HashScorer(100000, Mode::kTree, 16);
    const auto own = HashScorer(100000, Mode::kTree, 16);
    for (int call = 0; call < 6; ++call) {
      // The neighbour asks for the very same texts, before and between.
      std::mt19937 theirs(seed + call), mine(seed + call);
      CallSeen(*shared, SomeTexts(theirs), "neighbour");
      const std::vector<Tokens> texts = SomeTexts(mine);
      ASSERT_EQ(CallSeen(*shared, texts, "me"), CallSeen(*own, texts, "me"));
    }
  }
}

// A cache that is too small for both: how much the neighbour asks may show, what it asks does not.
TEST(Namespaces, ShowHowMuchIsEvictedAndNotWhat) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto same = HashScorer(40, Mode::kTree, 16), other = HashScorer(40, Mode::kTree, 16);
    for (int call = 0; call < 6; ++call) {
      std::mt19937 equal(seed + call), unequal(seed + call), mine(seed + call);
      CallSeen(*same, SomeTexts(equal), "neighbour");
      CallSeen(*other, SomeTexts(unequal, true), "neighbour");
      const std::vector<Tokens> texts = SomeTexts(mine);
      ASSERT_EQ(CallSeen(*same, texts, "me"), CallSeen(*other, texts, "me"));
    }
  }
}

// Throws where a slot is read that was told to be cleared and not filled since.
class ClearedSlotsLM final : public HashLM {
 public:
  std::set<SlotId> filled, cleared;

  void Forward(const BatchPlan& plan) override {
    for (const int64_t slot : plan.slots) {
      cleared.erase(static_cast<SlotId>(slot));
      filled.insert(static_cast<SlotId>(slot));
    }
    for (const int64_t slot : plan.segment_slots) Check(static_cast<SlotId>(slot));
    HashLM::Forward(plan);
  }
  OutputAnswers Answer(const OutputQuestions& questions) override {
    for (const SlotId slot : questions.normalizer_slots) Check(slot);
    for (const SlotId slot : questions.logit_slots) Check(slot);
    return HashLM::Answer(questions);
  }
  void ReadSlots(const std::vector<SlotId>& slots, char* bytes) override {
    for (const SlotId slot : slots) Check(slot);
    HashLM::ReadSlots(slots, bytes);
  }

 private:
  void Check(SlotId slot) const {
    if (cleared.count(slot) > 0) throw std::logic_error("a slot is read that was cleared");
  }
};

TEST(ClearedNamespace, NoneOfItsSlotsIsEverReadAgain) {
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    auto made = std::make_unique<ClearedSlotsLM>();
    ClearedSlotsLM* const model = made.get();
    const auto scorer = ScorerOf(std::move(made), 200, Mode::kTree, 16);
    CallSeen(*scorer, SomeTexts(random), "neighbour");
    model->filled.clear();
    const std::string mine = "me";
    const std::vector<Tokens> texts = SomeTexts(random);
    CallSeen(*scorer, texts, mine);
    const int64_t before = StatsOf(*scorer).cached_tokens;
    model->cleared = model->filled;
    scorer->Clear(&mine);
    EXPECT_EQ(before - StatsOf(*scorer).cached_tokens, static_cast<int64_t>(model->filled.size()));
    const PathScores known = scorer->Known(Paths(texts, LastTokens(texts, 1)), mine);
    for (const auto& path : known.log_probs) ASSERT_TRUE(std::isnan(path.at(0)));
    const std::string file = testing::TempDir() + "lmfusion_cleared_namespace";
    EXPECT_EQ(scorer->Save(file, nullptr, mine), 0);
    scorer->Save(file, nullptr, "neighbour");
    for (int call = 0; call < 20; ++call) {
      CallSeen(*scorer, SomeTexts(random), call % 2 == 0 ? mine : "neighbour");
    }
  }
}

TextStageOptions StageOptions() {
  TextStageOptions options;
  options.start_token = 0;
  options.end_token = 3;
  return options;
}

std::shared_ptr<const Tokenizer> Toy() {
  return std::make_shared<const ToyTokenizer>(std::vector<std::string>{"a", "b", " "});
}

TEST(Namespaces, DoNotShowInBytesTokenized) {
  const TextStage shared(Toy(), CasingByName("none"), StageOptions());
  const TextStage own(Toy(), CasingByName("none"), StageOptions());
  const std::string context = "a diary that both have read";
  const auto bytes = [&](const TextStage& stage, const std::string& name) {
    TextCall call{name};
    stage.Continuations({context, context + " twice"}, {{"a"}, {"b"}}, Join::kSpace, &call);
    return call.bytes_tokenized;
  };
  bytes(shared, "neighbour");
  // A name and a text that together read like another's name and text.
  TextCall call{"neighbou"};
  shared.Continuations({"r" + context}, {{"a"}}, Join::kSpace, &call);
  const uint64_t first = bytes(own, "me"), next = bytes(own, "me");
  EXPECT_GT(first, next);
  EXPECT_EQ(bytes(shared, "me"), first);
  EXPECT_EQ(bytes(shared, "me"), next);
  const std::string me = "me";
  shared.Forget(&me);
  EXPECT_EQ(bytes(shared, "neighbour"), next) << "others keep theirs";
  EXPECT_EQ(bytes(shared, "me"), first);
  shared.Forget(nullptr);
  EXPECT_EQ(bytes(shared, "neighbour"), first);
}

const char kMarker[] = "abracadabra";

// What `call` says is wrong, which must be something, and no text.
void ExpectNoText(const std::function<void()>& call) {
  try {
    call();
    ADD_FAILURE() << "no error";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()), "");
    EXPECT_EQ(std::string(error.what()).find(kMarker), std::string::npos) << error.what();
  }
}

TEST(Errors, HoldNothingOfATextOrANamespace) {
  const std::string marker = kMarker, bad = marker + "\xff" + marker;
  const auto to_bad = [&](const std::string&) { return bad; };
  const auto raises = [](const std::string&) -> std::string { throw std::runtime_error("caller"); };
  const std::vector<std::shared_ptr<const Casing>> casings{
      CasingByName("none"),
      CasingByName("sentence"),
      CasingByName("variants"),
      TruecaserFromBytes(TinyTruecaserFile(), false),
      TruecaserFromBytes(TinyTruecaserFile(), true),
      CasingFromFunction(to_bad),
      CasingFromFunction(raises)};
  for (const auto& casing : casings) {
    const TextStage stage(Toy(), casing, StageOptions());
    TextCall call{marker};
    ExpectNoText([&] { stage.Continuations({bad}, {{marker}}, Join::kAuto, &call); });
    ExpectNoText([&] { stage.Continuations({marker}, {{bad}}, Join::kSpace, &call); });
    ExpectNoText([&] { stage.Texts({marker, bad}, true, &call); });
    ExpectNoText([&] { stage.Endings({bad}, {marker}, &call); });
    ExpectNoText([&] { stage.Before({bad, {}}, &call); });
    ExpectNoText([&] { stage.Before({marker, {marker, bad}}, &call); });
    ExpectNoText([&] { stage.Alternatives(marker, bad, Join::kSpace); });
    ExpectNoText([&] { casing->Apply(bad, marker); });
  }
  TextStageOptions no_end;
  const TextStage stage(Toy(), CasingByName("none"), no_end);
  TextCall call;
  ExpectNoText([&] { stage.Texts({marker}, true, &call); });
  ExpectNoText([&] { stage.Endings({marker}, {""}, &call); });

  const auto scorer = HashScorer(4);
  const std::vector<Tokens> texts{{1, 2, 3, 4, 5, 6, 7}, {1, 99}};
  ExpectNoText([&] { scorer->Score(Paths({texts[0]}, {1}), marker); });
  ExpectNoText([&] { scorer->Score(Paths({texts[1]}, {1}), marker); });
  ExpectNoText([&] { scorer->Prime(Paths({texts[0]}, {1}), marker); });
  ExpectNoText([&] { scorer->Load("/nowhere", marker); });
  ExpectNoText([&] { scorer->Save("/nowhere/at/all", nullptr, marker); });
}

}  // namespace
}  // namespace lmfusion
