// Processes that are forked before, between and beside calls.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/path_scorer.h"
#include "gated_lm.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"

// What a child ran counts too, where clang counts (the nightly stage `coverage`).
// NOLINTNEXTLINE(bugprone-reserved-identifier): clang's name.
extern "C" int __llvm_profile_write_file() __attribute__((weak));

namespace lmfusion {
namespace {

constexpr unsigned kSeconds = 60;  // after which a process that hangs is ended
constexpr int kRight = 0, kRefused = 1, kWrong = 2;

// What `work` returns in a forked process; 128 and a signal where that ended it.
int InChild(const std::function<int()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(kSeconds);
    const int result = work();
    if (__llvm_profile_write_file != nullptr) __llvm_profile_write_file();
    _exit(result);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Without gtest, which belongs to the parent.
int Scored(PathScorer& scorer) {
  const Tokens text{1, 2, 3, 4};
  try {
    const PathScores scores = scorer.Score(Paths({text}, {1}), "");
    for (size_t i = 0; i < 3; ++i) {
      if (std::abs(scores.log_probs[0][i] - HashModel::LogProb(text, i + 1)) > kTolerance) {
        return kWrong;
      }
    }
    return kRight;
  } catch (const Error& error) {
    return std::string(error.what()).find("forked") == std::string::npos ? kWrong : kRefused;
  }
}

TEST(Fork, BeforeTheFirstCallAndBetweenCalls) {
  const auto scorer = HashScorer(100);
  EXPECT_EQ(InChild([&] { return Scored(*scorer); }), kRight);
  ExpectScores(*scorer, {{1, 2, 3}}, 1);
  EXPECT_EQ(InChild([&] {
              const Stats before = StatsOf(*scorer);
              if (before.cached_tokens != 2 || before.tokens_computed != 2) return kWrong;
              const int scored = Scored(*scorer);
              return StatsOf(*scorer).tokens_computed == 3 ? scored : kWrong;
            }),
            kRight);
  EXPECT_EQ(StatsOf(*scorer).tokens_computed, 2u) << "the parent's cache is its own";
  EXPECT_EQ(InChild([&] { return InChild([&] { return Scored(*scorer); }); }), kRight);
}

void ExpectRefusedBesideACall(PathScorer* scorer, Gate* gate) {
  std::thread thread([&] { ExpectScores(*scorer, {{1, 2, 3}}, 1); });
  gate->AwaitSomeone();
  EXPECT_EQ(InChild([&] { return Scored(*scorer); }), kRefused);
  EXPECT_EQ(InChild([&] {
              for (const auto& call : std::vector<std::function<void()>>{
                       [&] { scorer->Clear(); }, [&] { StatsOf(*scorer); },
                       [&] { scorer->Score(Paths({}, {}), ""); }}) {
                try {
                  call();
                  return kWrong;
                } catch (const Error&) {
                }
              }
              return InChild([&] { return Scored(*scorer); });  // and so is a child of the child
            }),
            kRefused);
  // A scorer that the child makes is whole.
  EXPECT_EQ(InChild([] { return Scored(*HashScorer(100)); }), kRight);
  gate->Open();
  thread.join();
  ExpectScores(*scorer, {{1, 2, 4}}, 1);
  EXPECT_EQ(InChild([&] { return Scored(*scorer); }), kRight);
}

TEST(Fork, BesideACallIsRefused) {
  Gate gate;
  const auto scorer = ScorerOf(std::make_unique<GatedLM>(&gate), 100);
  ExpectRefusedBesideACall(scorer.get(), &gate);
}

TEST(Fork, BesideACallOfAPlainModelIsRefused) {
  Gate gate;
  const auto scorer = PlainPathScorer(std::make_unique<GatedPlainLM>(&gate), {});
  std::thread thread([&] { ExpectScores(*scorer, {{1, 2, 3}}, 1); });
  gate.AwaitSomeone();
  EXPECT_EQ(InChild([&] { return Scored(*scorer); }), kRefused);
  gate.Open();
  thread.join();
  EXPECT_EQ(InChild([&] { return Scored(*scorer); }), kRight);
}

// Wherever the other threads are at that moment, the child is right or refuses.
TEST(Fork, AtAnyMoment) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP()
      << "AddressSanitizer's allocator, whose locks a fork does not take, may hang a child";
#endif
  const auto scorer = HashScorer(40);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int32_t thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&, thread] {
      for (int32_t call = 0; !stop; ++call) {
        ExpectScores(*scorer, {{thread, call % 50, 5}}, 1);
        if (call % 7 == 0) StatsOf(*scorer);
      }
    });
  }
  int refused = 0;
  for (int i = 0; i < 50; ++i) {
    const int result = InChild([&] { return Scored(*scorer); });
    EXPECT_TRUE(result == kRight || result == kRefused) << result;
    refused += result == kRefused ? 1 : 0;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(InChild([&] { return Scored(*scorer); }), kRight);
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace lmfusion
