// Decodes simulated emissions with and without a language model.
//   cpp_decoder MODEL LEXICON SENTENCES [SENTENCES_AT_MOST [BONUS_ALONE WEIGHT BONUS]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "lexicon_search.h"
#include "lmfusion/scorer.h"

namespace {

constexpr double kNoise = 2.0;

std::vector<std::string> Lines(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

std::vector<std::string> Words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

int WordEdits(const std::string& reference, const std::string& hypothesis) {
  const std::vector<std::string> a = Words(reference), b = Words(hypothesis);
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

double WordErrorRate(const LexiconSearch& search, const std::vector<std::string>& sentences) {
  size_t edits = 0, words = 0;
  for (const std::string& said : sentences) {
    const std::string heard = search.Decode(MakeEmissions(said, kNoise));
    edits += WordEdits(said, heard);
    words += Words(said).size();
    std::printf("  %s\n", heard.c_str());
  }
  return static_cast<double>(edits) / static_cast<double>(words);
}

int Run(int argc, char** argv) {
  if (argc != 4 && argc != 5 && argc != 8) {
    std::fprintf(stderr,
                 "usage: cpp_decoder MODEL LEXICON SENTENCES [SENTENCES_AT_MOST"
                 " [BONUS_ALONE WEIGHT BONUS]]\n");
    return 2;
  }
  const auto number = [&](int i, double otherwise) {
    return i < argc ? std::atof(argv[i]) : otherwise;
  };
  const std::vector<std::string> lexicon = Lines(argv[2]);
  std::vector<std::string> sentences = Lines(argv[3]);
  if (argc > 4) sentences.resize(std::min<size_t>(sentences.size(), std::atoi(argv[4])));
  lmfusion::ScorerOptions options;
  options.casing = "sentence";
  lmfusion::LMFusionScorer scorer(argv[1], options);
  const lmfusion::StateScorer lm(scorer, {".", "?", "!"});

  SearchOptions search;  // weights chosen by bench/choose_weights.py
  search.word_bonus = number(5, 0);
  const double without = WordErrorRate(LexiconSearch(lexicon, lm, search), sentences);
  std::printf("word error rate without the language model: %.3f\n", without);
  search.lm_weight = number(6, 1);
  search.word_bonus = number(7, 3);
  const auto begin = std::chrono::steady_clock::now();
  const double with = WordErrorRate(LexiconSearch(lexicon, lm, search), sentences);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf("word error rate with the language model: %.3f, in %.3f s\n", with, seconds.count());
  std::printf("%s\n", scorer.stats().ToString().c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cpp_decoder: %s\n", error.what());
    return 1;
  }
}
