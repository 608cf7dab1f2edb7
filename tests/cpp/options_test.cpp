// The tables of options and counters: names, ranges, texts, sums.

#include "lmfusion/options.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>

#include "lmfusion/casing.h"
#include "lmfusion/stats.h"
#include "toy_text.h"

namespace lmfusion {
namespace {

TEST(Options, EveryNameIsReadAndWritten) {
  for (const std::string name : {"tree", "grouped", "uncached"}) {
    EXPECT_EQ(Name(ModeByName(name)), name);
  }
  for (const std::string name : {"plain", "word"}) EXPECT_EQ(Name(BoundaryByName(name)), name);
  for (const std::string name : {"auto", "space", "none"}) EXPECT_EQ(Name(JoinByName(name)), name);
  for (const std::string name : {"text", "allow"}) {
    EXPECT_EQ(Name(SpecialTokensByName(name)), name);
  }
  try {
    ModeByName("forest");
    ADD_FAILURE() << "no error";
  } catch (const std::invalid_argument& error) {
    EXPECT_EQ(std::string(error.what()).find("mode"), 0u) << error.what();
    EXPECT_NE(std::string(error.what()).find("\"tree\", \"grouped\", \"uncached\""),
              std::string::npos)
        << error.what();
  }
  EXPECT_THROW(BoundaryByName("words"), std::invalid_argument);
  EXPECT_THROW(JoinByName(""), std::invalid_argument);
  EXPECT_THROW(SpecialTokensByName("Text"), std::invalid_argument);
}

TEST(Options, EachThatIsOutOfItsRangeIsNamed) {
  EXPECT_NO_THROW(ScorerOptions().Validate());
  const auto refused = [](const std::string& name, const std::function<void(ScorerOptions*)>& set) {
    ScorerOptions options;
    set(&options);
    try {
      options.Validate();
      ADD_FAILURE() << name;
    } catch (const std::invalid_argument& error) {
      EXPECT_EQ(std::string(error.what()).find(name + " = "), 0u) << error.what();
    }
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  refused("weight", [=](ScorerOptions* o) { o->weight = nan; });
  refused("word_insertion_bonus", [=](ScorerOptions* o) { o->word_insertion_bonus = infinity; });
  refused("homophone_aggregation", [](ScorerOptions* o) { o->homophone_aggregation = "mean"; });
  refused("max_context_length", [](ScorerOptions* o) { o->max_context_length = 0; });
  refused("max_batch_tokens", [](ScorerOptions* o) { o->max_batch_tokens = 0; });
  refused("selfcheck_every", [](ScorerOptions* o) { o->selfcheck_every = -1; });
  refused("kv_cache_bytes", [](ScorerOptions* o) { o->kv_cache_bytes = 0; });
  ScorerOptions edges;
  edges.homophone_aggregation = "logsumexp";
  edges.max_context_length = edges.max_batch_tokens = edges.kv_cache_bytes = 1;
  EXPECT_NO_THROW(edges.Validate());
}

TEST(Options, TheirTextHasEveryValueAndNoObject) {
  ScorerOptions options;
  options.weight = 0.5;
  options.kv_cache_bytes = 1000;
  const std::string plain = options.ToString();
  for (const char* const part :
       {"weight=0.5", "kv_cache_bytes=1000", "mode=\"tree\"", "bos_id=\"auto\"",
        "boundary=\"plain\"", "join=\"auto\"", "special_tokens=\"text\"", "casing=\"none\""}) {
    EXPECT_NE(plain.find(part), std::string::npos) << part << " in " << plain;
  }
  EXPECT_EQ(plain.find("tokenizer"), std::string::npos);
  options.casing_object = CasingByName("sentence");
  options.tokenizer = std::make_shared<const ToyTokenizer>(std::vector<std::string>{"a"});
  const std::string objects = options.ToString();
  EXPECT_NE(objects.find("casing=<a Casing>"), std::string::npos) << objects;
  EXPECT_NE(objects.find("tokenizer=<a Tokenizer>"), std::string::npos) << objects;
}

TEST(Stats, CountsAreAddedAndSubtractedAndLevelsAreNot) {
  Stats a, b;
  a.calls = 5;
  a.cache_bytes = 100;
  a.latency_p99 = 0.25;
  b.calls = 3;
  b.cache_bytes = 40;
  b.latency_p99 = 0.5;
  b.cached = false;
  const Stats sum = a + b;
  EXPECT_EQ(sum.calls, 8u);
  EXPECT_EQ(sum.cache_bytes, 140);
  EXPECT_EQ(sum.latency_p99, 0.5);
  EXPECT_FALSE(sum.cached);
  EXPECT_TRUE((a + a).cached);
  EXPECT_FALSE((b + a).cached);
  const Stats since = a.Since(b);
  EXPECT_EQ(since.calls, 2u);
  EXPECT_EQ(since.cache_bytes, 100);
  EXPECT_EQ(a.ToString().find("Stats(calls=5, "), 0u) << a.ToString();
  EXPECT_EQ(b.ToJson().find("{\"calls\": 3, "), 0u) << b.ToJson();
  EXPECT_NE(b.ToJson().find("\"cached\": false"), std::string::npos) << b.ToJson();
}

}  // namespace
}  // namespace lmfusion
