// Random calls of all kinds, from one thread and several, in all modes and budgets, against the
// model that can be computed by hand.
//
//   LMFUSION_TEST_SECONDS  how long to go on, beyond the first rounds (default: not)
//   LMFUSION_TEST_SCORES   go on at least until so many token scores were compared (default: 0)
//   LMFUSION_TEST_WORKERS  rounds at a time (default: one a core)
//   LMFUSION_TEST_SEED     the first seed (default 1); a failure tells the seed of its round

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "random_calls.h"
#include "scored_paths.h"

namespace lmfusion {
namespace {

constexpr uint32_t kRounds = 16;  // of the short run
constexpr int kCalls = 40;        // of each thread of a round

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoll(value);
}

// Snapshots are written to memory where there is such a folder: a disk makes a round three times as
// long.
std::filesystem::path Folder() {
  const std::filesystem::path memory("/dev/shm");
  const std::filesystem::path folder =
      access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path();
  return folder / ("lmfusion_cache_random_test" + std::to_string(getpid()));
}

void Round(uint32_t seed, const std::string& folder) {
  const Settings settings(seed);
  SCOPED_TRACE("LMFUSION_TEST_SEED=" + std::to_string(seed) + ": " + settings.ToString());
  RandomCalls calls(settings, folder);
  std::vector<std::thread> threads;
  for (int thread = 1; thread < settings.threads; ++thread) {
    threads.emplace_back([&calls, seed, thread] {
      SCOPED_TRACE("LMFUSION_TEST_SEED=" + std::to_string(seed));
      calls.Run(seed + 1000000 * thread, kCalls);
    });
  }
  calls.Run(seed, kCalls);
  for (std::thread& thread : threads) thread.join();
  calls.ExpectWhole();
}

// Rounds on every core, since those of one thread are most of them.
TEST(Cache, RandomCallsAreRight) {
  using Clock = std::chrono::steady_clock;
  const std::filesystem::path folder = Folder();
  const auto first = static_cast<uint32_t>(FromEnvironment("LMFUSION_TEST_SEED", 1));
  const auto end = Clock::now() + std::chrono::seconds(FromEnvironment("LMFUSION_TEST_SECONDS", 0));
  const int64_t scores = FromEnvironment("LMFUSION_TEST_SCORES", 0);
  std::atomic<uint32_t> rounds{0};
  const auto work = [&](const std::string& own) {
    std::filesystem::create_directories(own);
    for (uint32_t round = rounds++; !HasFailure(); round = rounds++) {
      if (round >= kRounds && Clock::now() >= end && compared_scores >= scores) break;
      alarm(300);  // a call that hangs ends the program, once the others have ended
      Round(first + round, own);
    }
    --rounds;
  };
  std::vector<std::thread> workers;
  const int64_t at_a_time =
      FromEnvironment("LMFUSION_TEST_WORKERS", std::max(1u, std::thread::hardware_concurrency()));
  for (int64_t i = 0; i < at_a_time; ++i) {
    workers.emplace_back(work, folder / std::to_string(i));
  }
  for (std::thread& worker : workers) worker.join();
  alarm(0);
  RecordProperty("token_scores", std::to_string(compared_scores.load()));
  RecordProperty("rounds", std::to_string(rounds.load()));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace lmfusion
