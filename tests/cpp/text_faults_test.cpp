// What a text call leaves behind when an allocation fails, at each point where one can: the next
// call on the same object gives what it should, whatever was remembered half-way.
//
// PCRE2 and libsentencepiece allocate for themselves; what they ask of malloc is not made to fail.

#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "failing_new.h"
#include "lmfusion/casing.h"
#include "lmfusion/tokenizer.h"
#include "lmfusion/truecaser.h"
#include "text/stage/text_stage.h"
#include "toy_text.h"
#include "truecaser_file.h"

namespace lmfusion {
namespace {

using Call = std::function<std::string()>;

// Makes a thing and returns a call of it, which says in letters what came of it.
struct Work {
  std::string name;
  std::function<Call()> make;
};

std::string Letters(const std::vector<int32_t>& ids) {
  std::string letters;
  for (const int32_t id : ids) letters += std::to_string(id) + " ";
  return letters;
}

std::string Letters(const TokenPaths& paths) {
  std::string letters;
  for (const TokenPaths::Path& path : paths.paths) {
    letters += Letters(path.tokens()) + "from " + std::to_string(path.scored_begin) + " of " +
               std::to_string(path.alternative) + (path.ends_word ? " ends\n" : "\n");
  }
  return letters + Letters(paths.candidate_of);
}

std::string Letters(const std::vector<CasedText>& all) {
  std::string letters;
  for (const CasedText& cased : all) {
    letters += std::to_string(cased.context_bytes) + " of " + cased.text + "\n";
  }
  return letters;
}

// Byte-level BPE, or with marks for spaces; both with an added token and a normaliser.
std::string Json(bool byte_level) {
  const std::string added = R"("added_tokens": [{"id": 7, "content": "<|end|>", "special": true,
    "normalized": false, "single_word": false, "lstrip": false, "rstrip": false}], )";
  if (byte_level) {
    return "{" + added + R"("normalizer": {"type": "NFC"},
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
      "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġa": 4, "Ġab": 5,
                                         "Ã": 6}, "merges": ["a b", "Ġ a", "Ġ ab"]}})";
  }
  return "{" + added + R"("normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}, "pre_tokenizer": null,
    "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": false,
              "vocab": {"<unk>": 0, "a": 1, "b": 2, "▁": 3, "ab": 4, "▁a": 5, "▁ab": 6},
              "merges": ["a b", "▁ a", "▁ ab"]}})";
}

// A word too long to be remembered, others that are.
const char kText[] = "ab a  b <|end|> abababababababababababababababababababab ab";

Call Tokenizing(const std::shared_ptr<const Tokenizer>& tokenizer) {
  return [tokenizer] {
    const std::vector<int32_t> ids = tokenizer->Encode(kText);
    return Letters(ids) + tokenizer->Decode(ids) + Letters(tokenizer->EncodeAfterCut(" ab b")) +
           std::to_string(tokenizer->LastCut(kText, 40)) + tokenizer->Piece(5) +
           std::to_string(tokenizer->PieceId("ab"));
  };
}

Call CasingTexts(const std::shared_ptr<const Casing>& casing) {
  return [casing] {
    std::string letters;
    for (const char* const context : {"", "so i", "the new york in may . well then"}) {
      letters += Letters(casing->Alternatives(context, " i'm mcdonald"));
      letters += Letters({casing->Apply(context, " may")});
    }
    return letters;
  };
}

std::shared_ptr<const TextStage> Stage(const std::shared_ptr<const Casing>& casing) {
  TextStageOptions options;
  options.start_token = 0;
  options.end_token = 7;
  options.boundary = Boundary::kWord;
  options.max_context_length = 9;
  const auto tokenizer =
      std::make_shared<const ToyTokenizer>(std::vector<std::string>{"a", "b", " ", "b a", "the"});
  return std::make_shared<const TextStage>(tokenizer, casing, options);
}

// One of the things that a text stage does.
Call Staging(const std::shared_ptr<const TextStage>& stage, int which) {
  return [stage, which] {
    TextCall call;
    const std::vector<std::string> contexts{"", "so b", "the new york is where b a was born"};
    const std::vector<std::vector<std::string>> words{{"a"}, {"a", "b a", ""}, {"may", "b"}};
    const History history{"a prompt of words", {"the first b", "a second one"}};
    switch (which) {
      case 0: return Letters(stage->Continuations(contexts, words, Join::kSpace, &call));
      case 1: return Letters(stage->Texts(contexts, true, &call, stage->Before(history, &call)));
      case 2: return Letters(stage->Endings(contexts, {"", " b"}, &call));
      default: return Letters(stage->Alternatives("so b", "a", Join::kSpace));
    }
  };
}

std::vector<Work> AllWork() {
  std::vector<Work> all;
  for (const bool byte_level : {true, false}) {
    for (const SpecialTokens special : {SpecialTokens::kText, SpecialTokens::kAllow}) {
      all.push_back({"a tokenizer.json",
                     [=] { return Tokenizing(TokenizerFromJson(Json(byte_level), special)); }});
    }
  }
  all.push_back({"a function tokenizer", [] {
                   const auto encode = [](const std::string& text) {
                     return std::vector<int32_t>(text.size(), 3);
                   };
                   const auto tokenizer = TokenizerFromFunction(encode, 9);
                   return Call([=] { return Letters(tokenizer->Encode(kText)); });
                 }});
  const auto capital = [](const std::string& text) {
    return text.empty() ? text : "A" + text.substr(1);
  };
  const std::vector<std::function<std::shared_ptr<const Casing>()>> casings{
      [] { return CasingByName("none"); },
      [] { return CasingByName("sentence"); },
      [] { return CasingByName("variants"); },
      [=] { return CasingFromFunction(capital); },
      [] { return TruecaserFromBytes(TinyTruecaserFile(), false); },
      [] { return TruecaserFromBytes(TinyTruecaserFile(), true); }};
  for (size_t i = 0; i < casings.size(); ++i) {
    const std::string name = "casing " + std::to_string(i);
    all.push_back({name, [=] { return CasingTexts(casings[i]()); }});
    for (int which = 0; which < 4; ++which) {
      all.push_back({"text " + std::to_string(which) + " of " + name,
                     [=] { return Staging(Stage(casings[i]()), which); }});
    }
  }
  return all;
}

// An allocation of what `work` does: false where there is none of that number. What it throws must
// be std::bad_alloc.
template <typename Function>
bool Fails(int64_t count, FailingNew::Mode mode, const Function& work) {
  bool failed = false;
  try {
    const FailingNew failing(count, mode);
    work();
  } catch (const std::bad_alloc&) {
    failed = true;
  }
  EXPECT_TRUE(!failed || FailingNew::HasFailed());
  return FailingNew::HasFailed();
}

constexpr FailingNew::Mode kModes[] = {FailingNew::Mode::kOnce, FailingNew::Mode::kFromThenOn};

TEST(TextFaults, EachAllocationOfACallMayFail) {
  alarm(300);
  int faults = 0;
  for (const Work& work : AllWork()) {
    const std::string right = work.make()();
    for (const FailingNew::Mode mode : kModes) {
      const Call used = work.make();
      for (int64_t count = 0;; ++count) {
        SCOPED_TRACE(work.name + ", allocation " + std::to_string(count));
        const Call fresh = mode == FailingNew::Mode::kOnce ? work.make() : used;
        const bool failed = Fails(count, mode, fresh);
        Fails(count, mode, used);
        ASSERT_EQ(fresh(), right);
        ASSERT_EQ(used(), right);
        if (!failed) break;
        ++faults;
      }
    }
  }
  alarm(0);
  RecordProperty("faults", faults);
  EXPECT_GT(faults, 1000);
}

TEST(TextFaults, EachAllocationOfTheMakingMayFail) {
  alarm(300);
  int faults = 0;
  for (const Work& work : AllWork()) {
    const std::string right = work.make()();
    for (const FailingNew::Mode mode : kModes) {
      for (int64_t count = 0;; ++count) {
        SCOPED_TRACE(work.name + ", allocation " + std::to_string(count));
        if (!Fails(count, mode, work.make)) break;
        ++faults;
      }
      ASSERT_EQ(work.make()(), right);
    }
  }
  alarm(0);
  RecordProperty("faults", faults);
  EXPECT_GT(faults, 100);
}

}  // namespace
}  // namespace lmfusion
