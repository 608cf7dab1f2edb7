// What a call leaves behind when an allocation or the model fails, at each point where one can: the
// next call is right, every slot is free again, and nobody waits for ever.

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache/namespaces.h"
#include "cache/path_scorer.h"
#include "failing_new.h"
#include "hash_lm.h"
#include "lmfusion/errors.h"
#include "scored_paths.h"
#include "scorer/pruning.h"
#include "search/best_search.h"

namespace lmfusion {
namespace {

constexpr int64_t kCapacity = 30;  // tokens
constexpr unsigned kSeconds = 120;

// Ends the program where a call hangs.
class Watchdog {
 public:
  Watchdog() { alarm(kSeconds); }
  ~Watchdog() { alarm(0); }
};

// Fails the n-th time that it is called from Arm on.
class FaultyLM final : public HashLM {
 public:
  enum class Fault {
    kThrow,
    kNoHostMemory,
    kNoMemory,
    kNotFinite,
    kNormalizerNaN,
    kNormalizerInfinite,
    kLogitNaN,
    kLogitInfinite,
    kWordEndNaN
  };

  void Arm(Fault fault, int64_t calls) {
    fault_ = fault;
    left_ = calls;
    failed = false;
  }
  void Disarm() { left_ = -1; }
  bool failed = false;

  void Forward(const BatchPlan& plan) override {
    if (!Now()) return HashLM::Forward(plan);
    if (fault_ == Fault::kNotFinite) {
      poisoned_token = static_cast<int32_t>(plan.tokens.back());
      HashLM::Forward(plan);
      poisoned_token = -1;
    } else {
      Throw();
    }
  }
  OutputAnswers Answer(const OutputQuestions& questions) override {
    const bool now = Now();
    OutputAnswers answers = HashLM::Answer(questions);
    if (!now) return answers;
    const bool infinite = fault_ == Fault::kNormalizerInfinite || fault_ == Fault::kLogitInfinite;
    const float wrong =
        infinite ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
    const bool logit = fault_ == Fault::kLogitNaN || fault_ == Fault::kLogitInfinite;
    const bool normalizer = fault_ == Fault::kNormalizerNaN || fault_ == Fault::kNormalizerInfinite;
    const bool word_end = fault_ == Fault::kWordEndNaN;
    std::vector<float>* const values = logit        ? &answers.logits
                                       : normalizer ? &answers.normalizers
                                       : word_end   ? &answers.word_end_log_probs
                                                    : nullptr;
    if (values != nullptr && !values->empty()) {
      values->back() = wrong;
      return answers;
    }
    Throw();
  }
  void ReadSlots(const std::vector<SlotId>& slots, char* bytes) override {
    if (Now()) Throw();
    HashLM::ReadSlots(slots, bytes);
  }
  void WriteSlots(const std::vector<SlotId>& slots, const char* bytes) override {
    HashLM::WriteSlots(slots, bytes);
    if (Now()) Throw();
  }

 private:
  bool Now() {
    if (left_ < 0 || left_-- > 0) return false;
    failed = true;
    return true;
  }
  [[noreturn]] void Throw() const {
    if (fault_ == Fault::kNoMemory) throw OutOfDeviceMemory("no memory");
    if (fault_ == Fault::kNoHostMemory) throw std::bad_alloc();
    throw std::runtime_error("the model failed");
  }

  Fault fault_ = Fault::kThrow;
  int64_t left_ = -1;
};

const std::vector<Tokens> kTexts{{1, 2, 3, 7}, {1, 2, 3, 8, 9}, {1, 2, 4, 5, 9}, {1, 6}};

class CacheFaults : public testing::TestWithParam<Mode> {
 protected:
  CacheFaults()
      : folder_(std::filesystem::temp_directory_path() /
                ("lmfusion_cache_faults_test" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder_);
    auto model = std::make_unique<FaultyLM>();
    model_ = model.get();
    scorer_ = ScorerOf(std::move(model), kCapacity, GetParam(), 3);
    if (GetParam() == Mode::kTree) {
      ExpectScores(*scorer_, kTexts, 1);
      scorer_->Save(File("saved"), nullptr, "");
    }
  }
  ~CacheFaults() override { std::filesystem::remove_all(folder_); }
  std::string File(const std::string& name) const { return (folder_ / name).string(); }

  // Calls of all kinds that this mode has.
  std::vector<std::function<void()>> Calls() {
    const std::vector<int32_t> begins = LastTokens(kTexts, 1);
    std::vector<std::function<void()>> calls{
        [=] { scorer_->Score(Paths(kTexts, begins), ""); },
        [=] { scorer_->Score(Paths(kTexts, begins, true), ""); },
        [=] {
          CallReport report;
          scorer_->Score(Paths(kTexts, begins), "a namespace with a name of some length", &report);
        },
        [=] {
          scorer_->Score(Paths({Tokens(kCapacity, 5), {1, 2}, {7, 8, 9}}, {1, 1, 2}), "");
        }};
    calls.push_back([=] { scorer_->ScoreUncached(Paths(kTexts, begins, true)); });
    calls.push_back([=] { scorer_->Known(Paths(kTexts, begins, true), ""); });
    calls.push_back([=] {
      const std::vector<double> floors{-3, -100, -4, -2};
      ScoreWithPruning(*scorer_, Paths(kTexts, {2, 2, 2, 1}), floors, "pruned");
    });
    calls.push_back([=] {
      HypothesisLists lists;
      lists.paths = Paths(kTexts, std::vector<int32_t>(kTexts.size(), 1));
      lists.ends = {kTexts.size()};
      lists.base = {1, 0, 2, 0};
      lists.bonus.assign(kTexts.size(), 0);
      BestSearchOptions options;
      options.max_batch_tokens = 3;
      options.shares_prefixes = GetParam() == Mode::kTree;
      BestSearch search(*scorer_, lists, options, "best");
      while (!search.done()) search.Round();
    });
    if (GetParam() != Mode::kTree) return calls;
    const std::vector<int32_t> whole = LastTokens(kTexts, 0);
    calls.push_back([=] { scorer_->Prime(Paths(kTexts, whole), ""); });
    calls.push_back([=] { scorer_->Prime(Paths(kTexts, begins, true), "primed"); });
    calls.push_back([=] { scorer_->Load(File("saved"), ""); });
    calls.push_back([=] { scorer_->Load(File("saved"), "loaded"); });
    calls.push_back([=] { scorer_->Save(File("again"), nullptr, ""); });
    calls.push_back([=] {
      const TokenPaths some = Paths({{1, 2, 3}}, {3});
      scorer_->Save(File("some"), &some, "");
    });
    calls.push_back([=] {
      const std::string primed = "primed";
      scorer_->Clear(&primed);
    });
    calls.push_back([=] { scorer_->Clear(); });
    return calls;
  }

  // That all slots can be had (so none is pinned or lost), all scores are right and the budget is
  // kept to.
  void ExpectWhole() {
    ExpectScores(*scorer_, {Tokens(kCapacity, 3)}, 3);
    if (HasFatalFailure()) return;
    ExpectScores(*scorer_, kTexts, 1, "", true);
    if (HasFatalFailure()) return;
    ExpectScores(*scorer_, {{1, 2, 3, 7, 8}, {1, 6, 7}}, 2, "loaded");
    const Stats stats = StatsOf(*scorer_);
    ASSERT_LE(stats.cache_bytes, stats.cache_bytes_limit);
    if (GetParam() != Mode::kTree) {
      ASSERT_EQ(stats.cached_tokens, 0);
      ASSERT_EQ(stats.cache_bytes, 0);
    }
  }

  const std::filesystem::path folder_;
  FaultyLM* model_;
  std::unique_ptr<PathScorer> scorer_;
};

TEST_P(CacheFaults, EachAllocationMayFail) {
  const Watchdog watchdog;
  int64_t faults = 0;
  for (const FailingNew::Mode mode : {FailingNew::Mode::kOnce, FailingNew::Mode::kFromThenOn}) {
    int index = 0;
    for (const auto& call : Calls()) {
      for (int64_t count = 0;; ++count) {
        SCOPED_TRACE("call " + std::to_string(index) + ", allocation " + std::to_string(count));
        bool failed = false;
        try {
          const FailingNew failing(count, mode);
          call();
        } catch (const std::bad_alloc&) {
          failed = true;
        } catch (const CacheFileError&) {  // a stream tells of no reason
          failed = true;
        }
        ASSERT_NO_FATAL_FAILURE(ExpectWhole());
        if (!FailingNew::HasFailed()) {
          ASSERT_FALSE(failed);
          break;
        }
        ++faults;
      }
      ++index;
    }
  }
  RecordProperty("faults", static_cast<int>(faults));
  EXPECT_GT(faults, 100);
}

TEST_P(CacheFaults, EachUseOfTheModelMayFail) {
  const Watchdog watchdog;
  using Fault = FaultyLM::Fault;
  int64_t faults = 0;
  for (const Fault fault : {Fault::kThrow, Fault::kNoHostMemory, Fault::kNoMemory,
                            Fault::kNotFinite, Fault::kNormalizerNaN, Fault::kNormalizerInfinite,
                            Fault::kLogitNaN, Fault::kLogitInfinite, Fault::kWordEndNaN}) {
    int index = 0;
    for (const auto& call : Calls()) {
      for (int64_t count = 0;; ++count) {
        SCOPED_TRACE("call " + std::to_string(index) + ", fault " +
                     std::to_string(static_cast<int>(fault)) + " at " + std::to_string(count));
        bool failed = false;
        model_->Arm(fault, count);
        try {
          call();
        } catch (const std::runtime_error&) {
          failed = true;
        } catch (const std::bad_alloc&) {
          failed = true;
        }
        model_->Disarm();
        ASSERT_NO_FATAL_FAILURE(ExpectWhole());
        if (!model_->failed) {
          ASSERT_FALSE(failed);
          break;
        }
        ++faults;
        // A batch that did not fit the device is halved, so that need be no failure.
        if (fault != Fault::kNoMemory) {
          ASSERT_TRUE(failed);
        }
      }
      ++index;
    }
  }
  RecordProperty("faults", static_cast<int>(faults));
  EXPECT_GT(faults, 20);
}

// Several threads, one of which lacks memory again and again: the others get their scores.
TEST_P(CacheFaults, OthersDoNotPayForACallThatFails) {
  const Watchdog watchdog;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      const std::string own = "of thread " + std::to_string(thread);
      for (int call = 0; call < 200; ++call) {
        if (thread == 0) {
          try {
            const FailingNew failing(call % 60);
            scorer_->Score(Paths(kTexts, LastTokens(kTexts, 1)), own);
          } catch (const std::bad_alloc&) {
          }
        } else {
          ExpectScores(*scorer_, {{thread, call % 50, 3, 4}, {thread, 7}}, 1, own);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectWhole();
}

// Cuts what this process writes to a file after some bytes, as a full disk does.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);  // the write fails instead
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &before_); }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_;
};

TEST_P(CacheFaults, AFullDiskLeavesTheFileThatWasThere) {
  if (GetParam() != Mode::kTree) return;  // nothing is saved
  const auto size = std::filesystem::file_size(File("saved"));
  int faults = 0;
  for (rlim_t bytes = 0; bytes < size; ++bytes, ++faults) {
    SCOPED_TRACE(std::to_string(bytes) + " bytes");
    {
      const FullDisk full(bytes);
      ASSERT_THROW(scorer_->Save(File("saved"), nullptr, ""), CacheFileError);
    }
    ASSERT_EQ(std::filesystem::file_size(File("saved")), size);
    ASSERT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1) << "left behind";
  }
  scorer_->Load(File("saved"), "loaded");
  ExpectWhole();
  RecordProperty("faults", faults);
}

// Ends a process that does nothing but save, at any time, and looks at what it saved last.
TEST(CacheFile, AProcessThatIsKilledLeavesAWholeFile) {
  const Watchdog watchdog;
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("lmfusion_killed_test" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::string file = folder / "saved";
  std::vector<Tokens> texts;
  for (int32_t i = 0; i < 20; ++i) texts.push_back(Tokens(40, i));
  HashScorer(1000)->Save(file, nullptr, "");
  int cut = 0;
  for (int kill_number = 0; kill_number < 40; ++kill_number) {
    SCOPED_TRACE("kill " + std::to_string(kill_number));
    const pid_t child = fork();
    if (child == 0) {
      const auto scorer = HashScorer(1000);
      scorer->Score(Paths(texts, LastTokens(texts, 1)), "");
      while (true) scorer->Save(file, nullptr, "");
    }
    ASSERT_GT(child, 0);
    usleep(20000 + 700 * kill_number);
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    const auto loaded = HashScorer(1000);
    ASSERT_NO_THROW(loaded->Load(file, ""));
    ASSERT_NO_FATAL_FAILURE(ExpectScores(*loaded, texts, 1));
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path() == file) continue;
      ++cut;
      std::filesystem::remove(entry.path());
    }
  }
  std::filesystem::remove_all(folder);
  EXPECT_GT(cut, 0) << "none was writing when it was killed";
  RecordProperty("faults", cut);
}

TEST(NamespaceFaults, ARootThatTheTreeHasNoMemoryForLeavesNoName) {
  int64_t faults = 0;
  for (int64_t count = 0;; ++count) {
    TokenTree tree(100, 1, int64_t{1} << 40);
    Namespaces namespaces(tree);
    bool failed = false;
    {
      const FailingNew failing(count);
      try {
        namespaces.Root("a name too long to be kept within a string");
      } catch (const std::bad_alloc&) {
        failed = true;
      }
    }
    EXPECT_EQ(namespaces.size(), failed ? 0 : 1);
    EXPECT_EQ(tree.node_count(), failed ? 0 : 1);
    EXPECT_FALSE(tree.has_children(namespaces.Root("a name too long to be kept within a string")));
    EXPECT_EQ(namespaces.size(), 1);
    if (!failed) break;
    ++faults;
  }
  EXPECT_GT(faults, 2) << "of the name, of its place, of the tree";
}

INSTANTIATE_TEST_SUITE_P(All, CacheFaults,
                         testing::Values(Mode::kTree, Mode::kGrouped, Mode::kUncached));

}  // namespace
}  // namespace lmfusion
