// An engine that the library does not know: a class, and a row of the table of engines.
#include "engine/engines.h"

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "hash_lm.h"
#include "lmfusion/scorer.h"
#include "toy_model_file.h"

namespace lmfusion {
namespace {

// Reads a part of its own; there is no TorchScript in this file.
Parts PartsForIt() {
  Parts parts = AllParts();
  parts["engine/number"] = "17";
  return parts;
}

int loaded_number = 0;

void AddHashEngine() {
  Engine engine;
  engine.runs = [](const std::string& device) { return device == "hash"; };
  engine.check = [](const ScorerOptions& options) {
    if (options.compute != "float32") throw std::invalid_argument("hashes are exact");
  };
  engine.load = [](const ModelFile& file, const Bundle& bundle, const ScorerOptions&) {
    EXPECT_EQ(bundle.description.architecture, "Toy");
    loaded_number = std::stoi(file.Read("engine/number", 10));
    return std::unique_ptr<CausalLM>(new HashLM());
  };
  AddEngine(std::move(engine));
}

TEST(Engines, OneFromOutsideRunsAScorer) {
  AddHashEngine();
  const std::string path = Write(PartsForIt(), Table(PartsForIt()));
  ScorerOptions options;
  options.device = "hash";
  LMFusionScorer scorer(path, options);
  EXPECT_EQ(loaded_number, 17);
  const std::vector<std::vector<int32_t>> paths = {{1, 5, 9}, {1, 5, 7, 7}, {2, 3}};
  for (int round = 0; round < 2; ++round) {  // computed, and from the cache
    const auto log_probs = scorer.score_token_paths(paths, {1, 1, 1});
    for (size_t i = 0; i < paths.size(); ++i) {
      for (size_t k = 1; k < paths[i].size(); ++k) {
        EXPECT_NEAR(log_probs[i][k - 1], HashModel::LogProb(paths[i], k), 1e-5);
      }
    }
  }
  EXPECT_EQ(scorer.stats().tokens_computed, 4u);  // 1, 1 5, 1 5 7, 2: and none that nothing follows
  options.compute = "int8";
  EXPECT_THROW(LMFusionScorer(path, options), std::invalid_argument);
  options.device = "of nobody";
  EXPECT_THROW(LMFusionScorer(path, options), std::invalid_argument);
}

}  // namespace
}  // namespace lmfusion
