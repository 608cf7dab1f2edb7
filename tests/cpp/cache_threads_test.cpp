// What threads may rely on beside a call that takes its time: counters that do not wait for it.

#include <gtest/gtest.h>
#include <unistd.h>

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache/namespaces.h"
#include "cache/path_cache.h"
#include "cache/path_scorer.h"
#include "gated_lm.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"

namespace lmfusion {
namespace {

// With a call inside the model, so that whatever waits for it hangs, and the alarm ends it.
void ExpectCountersDoNotWait(PathScorer* scorer, Gate* gate) {
  alarm(60);
  std::thread thread([&] { ExpectScores(*scorer, {{1, 2, 3}}, 1); });
  gate->AwaitSomeone();
  EXPECT_EQ(StatsOf(*scorer).forwards, 0u);
  gate->Open();
  thread.join();
  EXPECT_EQ(StatsOf(*scorer).forwards, 1u);
  alarm(0);
}

TEST(Counters, DoNotWaitForTheModel) {
  Gate gate;
  const auto scorer = ScorerOf(std::make_unique<GatedLM>(&gate), 100);
  ExpectCountersDoNotWait(scorer.get(), &gate);
}

TEST(Counters, DoNotWaitForAPlainModel) {
  Gate gate;
  const auto scorer = PlainPathScorer(std::make_unique<GatedPlainLM>(&gate), {});
  ExpectCountersDoNotWait(scorer.get(), &gate);
}

// Calls that run as one, of which one is bad: each is tried again alone.
TEST(Counters, ARetryCountsWhatTheCacheHeldOnce) {
  auto model = std::make_unique<HashLM>();
  model->poisoned_token = 13;
  PathScorerOptions options;
  options.kv_cache_bytes = 100 * TokenBytes();
  PathCache cache(std::move(model), options);
  struct Asked {
    explicit Asked(const Tokens& text) : paths(Paths({text}, {3})), scores(paths) {}
    const std::string name;
    const TokenPaths paths;
    PathScores scores;
    CallReport report;
    Call call{paths, name, &scores, &report};
  };
  Asked before({1, 2, 3, 4}), good({1, 2, 3, 5}), bad({1, 2, 13, 5}), more({1, 2, 3, 6, 7});
  Stats counters;
  cache.DoCalls(&before.call, &counters);
  EXPECT_EQ(counters.tokens_reused, 0u);
  good.call.next = &bad.call;
  bad.call.next = &more.call;
  cache.DoCalls(&good.call, &counters);
  EXPECT_FALSE(good.call.error);
  EXPECT_FALSE(more.call.error);
  EXPECT_THROW(std::rethrow_exception(bad.call.error), NumericalError);
  EXPECT_EQ(counters.tokens_reused, 6u) << "1 2 3, by each of the two that were right";
  EXPECT_EQ(good.report.reused, (std::vector<std::vector<bool>>{{true, true, true, false}}));
  EXPECT_EQ(good.report.tokens_computed, 0u);
  EXPECT_EQ(more.report.tokens_computed, 1u);
}

// A model that fails at a token, and lets a call go when it has done so twice.
class LettingGoLM final : public HashLM {
 public:
  static constexpr int32_t kBad = 13;
  Call* lets_go = nullptr;
  int failures = 0;
  void Forward(const BatchPlan& plan) override {
    for (const int64_t token : plan.tokens) {
      if (token != kBad) continue;
      if (++failures == 2) lets_go->withdrawn = true;
      throw std::runtime_error("a bad token");
    }
    HashLM::Forward(plan);
  }
};

TEST(Calls, ThatAreSettledAreNotTriedAgainAndOneThatIsLetGoEndsTheWork) {
  auto owned = std::make_unique<LettingGoLM>();
  LettingGoLM& model = *owned;
  PathScorerOptions options;
  options.kv_cache_bytes = 100 * TokenBytes();
  options.mode = Mode::kGrouped;
  PathCache cache(std::move(owned), options);
  const std::string name;
  const TokenPaths paths[] = {Paths({{1, 2, 3, 4}}, {3}), Paths({{1, LettingGoLM::kBad, 5}}, {2}),
                              Paths({{1, 2, 6, 7}}, {3})};
  PathScores scores[] = {PathScores(paths[0]), PathScores(paths[1]), PathScores(paths[2])};
  Call good(paths[0], name, &scores[0]), bad(paths[1], name, &scores[1]),
      goes(paths[2], name, &scores[2]);
  good.next = &bad;
  bad.next = &goes;
  model.lets_go = &goes;
  Stats counters;
  cache.DoCalls(&good, &counters);
  EXPECT_TRUE(good.settled);
  EXPECT_FALSE(good.error);
  ExpectRight({{1, 2, 3, 4}}, {3}, scores[0]);
  EXPECT_TRUE(bad.settled);
  EXPECT_THROW(std::rethrow_exception(bad.error), std::runtime_error);
  EXPECT_EQ(model.failures, 2) << "once among the others, once alone";
  EXPECT_FALSE(goes.settled);
  EXPECT_FALSE(goes.error);
  EXPECT_EQ(model.forwards, 2) << "the good one's pass, once, and one of who is let go";
}

TEST(Namespaces, AreForgottenAFewAtATime) {
  TokenTree tree(100000, 1, int64_t{1} << 40);
  Namespaces namespaces(tree, 100);
  const auto name = [](int i) { return "user " + std::to_string(i); };
  // Namespaces that hold something are never forgotten, however many there are.
  for (int i = 0; i < 3000; ++i) {
    tree.FindOrAdd(namespaces.Root(name(i)), 1);
    const int64_t before = namespaces.looked_at();
    namespaces.ForgetSome();
    ASSERT_LE(namespaces.looked_at() - before, 4);
  }
  EXPECT_EQ(namespaces.size(), 3000);
  for (int i = 0; i < 3000; ++i) ASSERT_TRUE(tree.has_children(namespaces.Root(name(i))));
  // Calls of known ones look at two.
  const int64_t before = namespaces.looked_at();
  for (int i = 0; i < 50; ++i) {
    namespaces.Root(name(7));
    namespaces.ForgetSome();
  }
  EXPECT_LE(namespaces.looked_at() - before, 100);
  // Empty ones go as new ones come.
  for (int i = 0; i < 3000; ++i) tree.RemoveChildren(namespaces.Root(name(i)));
  for (int i = 3000; i < 9000; ++i) {
    namespaces.Root(name(i));
    namespaces.ForgetSome();
    ASSERT_LE(namespaces.size(), 3001);
  }
  EXPECT_LE(namespaces.size(), 101);
  EXPECT_EQ(tree.node_count(), namespaces.size());
}

}  // namespace
}  // namespace lmfusion
