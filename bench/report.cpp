#include "report.h"

#include <ATen/Parallel.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

namespace lmfusion {
namespace {

using nlohmann::ordered_json;

std::string CpuName() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

ordered_json Machine() {
  utsname names{};
  uname(&names);
  const double bytes = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  return {{"cpu", CpuName()},
          {"cores", std::thread::hardware_concurrency()},
          {"memory_bytes", static_cast<int64_t>(bytes)},
          {"system", std::string(names.sysname) + " " + names.release}};
}

ordered_json ModelSummary(const LMFusionScorer& scorer) {
  const ordered_json description = ordered_json::parse(scorer.model_description(), nullptr, false);
  ordered_json summary = ordered_json::object();
  if (!description.is_object()) return summary;  // a plain TorchScript module without one
  for (const char* field : {"kind", "architecture", "layers", "hidden_size", "vocabulary_size",
                            "source", "weights_sha256"}) {
    if (description.contains(field)) summary[field] = description[field];
  }
  return summary;
}

ordered_json Settings(const LMFusionScorer& scorer, const ReplayOptions& options) {
  const ScorerOptions& with = scorer.options();
  return {{"mode", Name(with.mode)},
          {"compute", with.compute},
          {"kv_dtype", with.kv_dtype},
          {"device", with.device},
          {"casing", with.casing},
          {"bos", with.bos},
          {"boundary", Name(with.boundary)},
          {"weight", with.weight},
          {"word_insertion_bonus", with.word_insertion_bonus},
          {"kv_cache_bytes", with.kv_cache_bytes},
          {"max_batch_tokens", with.max_batch_tokens},
          {"max_context_length", with.max_context_length},
          {"cold", Name(options.cold)},
          {"repeats", options.repeats},
          {"warmup_calls", options.warmup_calls},
          {"threads", at::get_num_threads()},
          {"clients", options.clients}};
}

ordered_json Counters(const Stats& stats) {
  ordered_json counters = ordered_json::parse(stats.ToJson());
  counters["stage_seconds"] = {{"text", stats.text_seconds},
                               {"tree", stats.tree_seconds},
                               {"forward", stats.forward_seconds},
                               {"output", stats.output_seconds},
                               {"total", stats.total_seconds}};
  return counters;
}

ordered_json CallMilliseconds(const Replay& replay) {
  std::vector<double> all;
  for (const Repetition& repetition : replay.repetitions) {
    for (double seconds : repetition.call_seconds) all.push_back(1e3 * seconds);
  }
  return {{"p50", Quantile(all, 0.50)},
          {"p95", Quantile(all, 0.95)},
          {"p99", Quantile(all, 0.99)},
          {"max", *std::max_element(all.begin(), all.end())}};
}

// What one client took alone, and how many times its calls a second several do.
ordered_json OneClient(const Replay& replay, int clients) {
  std::vector<double> seconds, throughput;
  for (const Repetition& repetition : replay.repetitions) {
    seconds.push_back(repetition.one_client_seconds);
    throughput.push_back(clients * repetition.one_client_seconds / repetition.seconds);
  }
  const Repetition& last = replay.repetitions.back();
  return {{"seconds", Quantile(seconds, 0.5)},
          {"forwards", last.one_client_forwards},
          {"relative_throughput", Quantile(throughput, 0.5)},
          {"relative_throughput_each", throughput}};
}

// The counters are those of the repetition whose time is the median (the lower of two).
ordered_json Results(const Replay& replay, int clients) {
  std::vector<const Repetition*> ordered;
  std::vector<double> seconds;
  for (const Repetition& repetition : replay.repetitions) {
    ordered.push_back(&repetition);
    seconds.push_back(repetition.seconds);
  }
  std::sort(ordered.begin(), ordered.end(),
            [](const Repetition* a, const Repetition* b) { return a->seconds < b->seconds; });
  const Repetition& median = *ordered[(ordered.size() - 1) / 2];
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  ordered_json results = {
      {"seconds", median.seconds},
      {"seconds_each", seconds},
      {"candidates_per_second", static_cast<double>(median.stats.candidates) / median.seconds},
      {"call_milliseconds", CallMilliseconds(replay)}};
  results.update(Counters(median.stats));
  if (clients > 1) results["one_client"] = OneClient(replay, clients);
  results["peak_memory_bytes"] = int64_t{1024} * usage.ru_maxrss;
  return results;
}

std::string Now() {
  char text[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

}  // namespace

double Quantile(std::vector<double> values, double rank) {
  std::sort(values.begin(), values.end());
  const double at = rank * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

ordered_json Report(const LMFusionScorer& scorer, const std::vector<Request>& requests,
                    const ReplayOptions& options, const Replay& replay,
                    const std::string& command) {
  size_t candidates = 0;
  for (const Request& request : requests) candidates += request.Candidates();
  ordered_json report = {
      {"program", "lmfusion_bench"},
      {"command", command},
      {"time", Now()},
      {"machine", Machine()},
      {"versions",
       {{"lmfusion", LMFUSION_VERSION}, {"torch", TORCH_VERSION}, {"compiler", __VERSION__}}},
      {"model", ModelSummary(scorer)},
      {"settings", Settings(scorer, options)},
      {"requests", {{"calls", requests.size()}, {"candidates", candidates}}},
      {"results", Results(replay, options.clients)}};
  if (options.keep_scores) report["scores"] = replay.scores;
  return report;
}

std::string Summary(const ordered_json& report) {
  const ordered_json& results = report["results"];
  const ordered_json& calls = results["call_milliseconds"];
  const ordered_json& stages = results["stage_seconds"];
  const ordered_json& settings = report["settings"];
  char text[1024];
  std::snprintf(
      text, sizeof text,
      "%s, %s, %s, %d thread(s), %d client(s), median of %zu\n"
      "seconds          %10.3f   (%.0f candidates a second)\n"
      "ms per call      %10.2f p50   %.2f p95   %.2f p99   %.2f max\n"
      "calls            %10lld   candidates %lld\n"
      "tokens requested %10lld   computed %lld   reused %lld\n"
      "forward passes   %10lld   evictions %lld   truncated contexts %lld\n"
      "seconds in       text %.3f   tree %.3f   forward %.3f   output %.3f   of %.3f\n"
      "peak memory      %10.0f MB\n",
      settings["mode"].get<std::string>().c_str(), settings["compute"].get<std::string>().c_str(),
      (settings["cold"] == "never" ? "warm" : "cold per " + settings["cold"].get<std::string>())
          .c_str(),
      settings["threads"].get<int>(), settings["clients"].get<int>(),
      results["seconds_each"].size(), results["seconds"].get<double>(),
      results["candidates_per_second"].get<double>(), calls["p50"].get<double>(),
      calls["p95"].get<double>(), calls["p99"].get<double>(), calls["max"].get<double>(),
      results["calls"].get<long long>(), results["candidates"].get<long long>(),
      results["tokens_requested"].get<long long>(), results["tokens_computed"].get<long long>(),
      results["tokens_reused"].get<long long>(), results["forwards"].get<long long>(),
      results["evictions"].get<long long>(), results["truncated_contexts"].get<long long>(),
      stages["text"].get<double>(), stages["tree"].get<double>(), stages["forward"].get<double>(),
      stages["output"].get<double>(), stages["total"].get<double>(),
      results["peak_memory_bytes"].get<double>() / 1e6);
  if (!results.contains("one_client")) return text;
  const ordered_json& one = results["one_client"];
  char more[256];
  std::snprintf(more, sizeof more,
                "against 1 client %10.2f x its calls a second (alone it took %.3f seconds and %lld "
                "forward passes)\n",
                one["relative_throughput"].get<double>(), one["seconds"].get<double>(),
                one["forwards"].get<long long>());
  return std::string(text) + more;
}

}  // namespace lmfusion
