// Decodes with flashlight-text's own LexiconDecoder and lmfusion::FlashlightLM, and prints the
// language model's part of every hypothesis, and what updateCache saves:  flashlight_decoder MODEL
#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "flashlight/lib/text/decoder/LexiconDecoder.h"
#include "lmfusion/flashlight_lm.h"
#include "lmfusion/scorer.h"

namespace text = fl::lib::text;

namespace {

constexpr int kUnits = 28, kBlank = 0, kSpace = 1;
const std::vector<std::string> kWords = {"the", "cat", "cut", "sat", "set", "mat", ""};

int UnitOf(char letter) { return letter == ' ' ? kSpace : letter - 'a' + 2; }

// [frames * units] of "the cat sat ", every vowel and first letter of which might be another.
std::vector<float> Emissions(int* frames) {
  const std::map<char, std::string> alike = {{'a', "ue"}, {'c', "sm"}, {'s', "cm"}};
  std::vector<float> emissions;
  for (const char letter : std::string("the cat sat ")) {
    std::vector<float> heard(kUnits, -30.0f), pause(kUnits, -30.0f);
    heard[UnitOf(letter)] = 0;
    const auto others = alike.find(letter);
    if (others != alike.end()) {
      for (const char other : others->second) heard[UnitOf(other)] = -0.5f;
    }
    pause[kBlank] = 0;
    emissions.insert(emissions.end(), heard.begin(), heard.end());
    emissions.insert(emissions.end(), pause.begin(), pause.end());
  }
  *frames = static_cast<int>(emissions.size()) / kUnits;
  return emissions;
}

// What a decoder does whose language model has no batch point.
class WithoutBatches : public lmfusion::FlashlightLM {
 public:
  using FlashlightLM::FlashlightLM;
  void updateCache(std::vector<text::LMStatePtr>) override {}
};

template <class Model>
std::vector<text::DecodeResult> Decode(lmfusion::LMFusionScorer& scorer) {
  scorer.clear_cache();
  scorer.reset_stats();
  const int last = static_cast<int>(kWords.size()) - 1;
  auto trie = std::make_shared<text::Trie>(kUnits, kSpace);
  for (int word = 0; word < last; ++word) {
    std::vector<int> spelling;
    for (const char letter : kWords[word] + " ") spelling.push_back(UnitOf(letter));
    trie->insert(spelling, word, 0.0f);
  }
  const text::LexiconDecoderOptions options{
      64, kUnits, 1e9, 0.5, 1.0, -1e30, 0.0, false, text::CriterionType::CTC};
  auto lm = std::make_shared<Model>(scorer, kWords);
  text::LexiconDecoder decoder(options, trie, lm, kSpace, kBlank, last, {}, false);
  int frames = 0;
  const std::vector<float> emissions = Emissions(&frames);
  return decoder.decode(emissions.data(), frames, kUnits);
}

void Run(const char* model) {
  lmfusion::LMFusionScorer scorer(model);
  const auto print = [&](const char* name) {
    const auto stats = scorer.stats();
    std::printf("%s_forwards %d\n%s_tokens %d\n", name, static_cast<int>(stats.forwards), name,
                static_cast<int>(stats.tokens_computed));
  };
  Decode<WithoutBatches>(scorer);
  print("without");
  const auto hypotheses = Decode<lmfusion::FlashlightLM>(scorer);
  print("with");
  for (const text::DecodeResult& hypothesis : hypotheses) {
    std::string words;
    for (const int word : hypothesis.words) {
      if (word >= 0) words += (words.empty() ? "" : "_") + kWords[word];
    }
    std::printf("%s %.9g\n", words.c_str(), hypothesis.lmScore);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  try {
    Run(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "flashlight_decoder: %s\n", error.what());
    return 1;
  }
}
