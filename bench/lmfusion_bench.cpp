// Replays a file of recorded scoring requests and says what they cost. See README.md beside this.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "lmfusion/scorer.h"
#include "replay.h"
#include "report.h"
#include "requests.h"

namespace lmfusion {
namespace {

struct Arguments {
  std::string model, requests, json_path;
  std::string mode = "tree", cold = "utterance", boundary = "plain";
  size_t calls = 0;
  ScorerOptions scorer;
  ReplayOptions replay;
};

void Declare(CLI::App* app, Arguments* arguments) {
  ScorerOptions& scorer = arguments->scorer;
  ReplayOptions& replay = arguments->replay;
  scorer.weight = 1.0;
  app->add_option("model", arguments->model, "Model file, model.lmf")->required();
  app->add_option("requests", arguments->requests, "Request file, JSON lines")->required();
  app->add_option("--mode", arguments->mode, "tree, grouped or uncached");
  app->add_option("--cold", arguments->cold,
                  "When the cache starts empty: utterance, call, repeat, or never (warm)");
  app->add_option("--calls", arguments->calls, "Only the first N calls; 0: all");
  app->add_option("--repeat", replay.repeats, "Repetitions; the median is reported")
      ->check(CLI::PositiveNumber);
  app->add_option("--warmup", replay.warmup_calls, "Calls before the first repetition")
      ->check(CLI::NonNegativeNumber);
  app->add_option("--threads", replay.threads, "Torch threads; 0: as torch chooses")
      ->check(CLI::NonNegativeNumber);
  app->add_option("--clients", replay.clients, "Decoder threads that replay at the same time")
      ->check(CLI::PositiveNumber);
  app->add_option("--compute", scorer.compute, "Compute type");
  app->add_option("--kv-dtype", scorer.kv_dtype, "Type of the keys and values that are kept");
  app->add_option("--device", scorer.device, "cpu, cuda, cuda:1");
  app->add_option("--casing", scorer.casing, "none, sentence, truecase, truecase-compat, variants");
  app->add_option("--truecaser", scorer.truecaser, "Truecaser file; the bundle's own by default");
  app->add_option("--bos", scorer.bos, "Start token: auto, tokenizer, none, or a token");
  app->add_option("--boundary", arguments->boundary, "plain or word");
  app->add_option("--weight", scorer.weight, "Weight of the log-probabilities");
  app->add_option("--word-insertion-bonus", scorer.word_insertion_bonus, "Added to every score");
  app->add_option("--kv-cache-bytes", scorer.kv_cache_bytes, "Cache budget, bytes; -1: auto");
  app->add_option("--max-batch-tokens", scorer.max_batch_tokens, "Tokens of one forward pass");
  app->add_option("--max-context-length", scorer.max_context_length, "Tokens of context kept");
  app->add_option("--json", arguments->json_path, "Write the report to this file");
  app->add_flag("--scores", replay.keep_scores, "Put every score into the JSON report");
}

std::string CommandLine(int argc, char** argv) {
  std::string command;
  for (int i = 0; i < argc; ++i) command += (i > 0 ? " " : "") + std::string(argv[i]);
  return command;
}

void Run(Arguments arguments, const std::string& command) {
  arguments.scorer.mode = ModeByName(arguments.mode);
  arguments.scorer.boundary = BoundaryByName(arguments.boundary);
  arguments.replay.cold = ColdByName(arguments.cold);
  const std::vector<Request> requests = ReadRequests(arguments.requests, arguments.calls);
  LMFusionScorer scorer(arguments.model, arguments.scorer);
  const Replay replay = ReplayRequests(&scorer, requests, arguments.replay);
  const nlohmann::ordered_json report = Report(scorer, requests, arguments.replay, replay, command);
  std::fputs(Summary(report).c_str(), stdout);
  if (arguments.json_path.empty()) return;
  std::ofstream file(arguments.json_path);
  file << report.dump(1) << '\n';
  if (!file.flush()) throw std::invalid_argument(arguments.json_path + ": cannot be written");
}

}  // namespace
}  // namespace lmfusion

int main(int argc, char** argv) {
  CLI::App app("Replays recorded scoring requests and reports what they cost.");
  lmfusion::Arguments arguments;
  lmfusion::Declare(&app, &arguments);
  CLI11_PARSE(app, argc, argv);
  try {
    lmfusion::Run(arguments, lmfusion::CommandLine(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lmfusion_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
