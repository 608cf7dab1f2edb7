// What the text stage costs for one candidate, as contexts grow:
//
//   python -m lmfusion export-truecaser -o english.truecaser
//   build/bench/text_stage_benchmark MODEL_FOLDER/tokenizer.json [english.truecaser]
//
// "known": the same contexts again, with other candidates. "longer": each context is one word
// longer than one seen before. "unknown": contexts that were never seen.

#include <benchmark/benchmark.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lmfusion/truecaser.h"
#include "text/stage/text_stage.h"

namespace lmfusion {
namespace {

const std::vector<std::string> kWords = {"the", "little", "boat",  "sailed", "past",   "a",
                                         "row", "of",     "white", "houses", "before", "dawn"};
constexpr int kCandidates = 10;  // of one context

// A word for each number.
std::string Name(size_t number) {
  std::string name = "n";
  for (; number > 0; number /= 26) name += static_cast<char>('a' + number % 26);
  return name;
}

std::string Context(size_t words, size_t number) {
  std::string context = Name(number);
  for (size_t i = 0; i < words; ++i) context += " " + kWords[(i * 7 + number) % kWords.size()];
  return context;
}

enum class Contexts { kKnown, kLonger, kUnknown };

void OneContext(benchmark::State& state, const std::shared_ptr<const Tokenizer>& tokenizer,
                const std::shared_ptr<const Casing>& casing, Contexts contexts, size_t words) {
  const TextStage stage(tokenizer, casing, {});
  TextCall call;
  size_t number = 0;
  std::string context = Context(words, number);
  stage.Continuations({context}, {{"a"}}, Join::kAuto, &call);
  call = {};
  for (auto _ : state) {
    state.PauseTiming();
    ++number;
    std::vector<std::string> candidates;
    for (int i = 0; i < kCandidates; ++i) {
      candidates.push_back(kWords[(number + i) % kWords.size()]);
    }
    std::vector<std::string> asked = {context};
    if (contexts == Contexts::kLonger) asked[0] += " " + Name(number);
    if (contexts == Contexts::kUnknown) asked[0] = Context(words, number);
    const std::vector<std::vector<std::string>> lists = {candidates};
    state.ResumeTiming();
    benchmark::DoNotOptimize(stage.Continuations(asked, lists, Join::kAuto, &call));
  }
  const auto asked = static_cast<double>(state.iterations()) * kCandidates;
  state.SetItemsProcessed(static_cast<int64_t>(asked));
  state.counters["bytes/candidate"] = static_cast<double>(call.bytes_tokenized) / asked;
}

std::string Read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void Register(const std::string& casing_name, const std::shared_ptr<const Tokenizer>& tokenizer,
              const std::shared_ptr<const Casing>& casing) {
  const std::vector<std::pair<const char*, Contexts>> kinds = {
      {"known", Contexts::kKnown}, {"longer", Contexts::kLonger}, {"unknown", Contexts::kUnknown}};
  for (const auto& kind : kinds) {
    for (const size_t words : {10, 100, 400}) {
      const std::string name =
          casing_name + "/" + kind.first + "/" + std::to_string(words) + "_words";
      const Contexts contexts = kind.second;
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        OneContext(state, tokenizer, casing, contexts, words);
      });
    }
  }
}

}  // namespace
}  // namespace lmfusion

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (argc < 2) {
    std::cerr << "usage: " << argv[0] << " tokenizer.json [truecaser] [--benchmark_...]\n";
    return 2;
  }
  try {
    const auto tokenizer = lmfusion::TokenizerFromJson(lmfusion::Read(argv[1]));
    lmfusion::Register("none", tokenizer, lmfusion::CasingByName("none"));
    lmfusion::Register("sentence", tokenizer, lmfusion::CasingByName("sentence"));
    if (argc > 2) {
      lmfusion::Register("truecase", tokenizer, lmfusion::TruecaserFromFile(argv[2], false));
    }
    benchmark::RunSpecifiedBenchmarks();
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
