#include "lmfusion/scorer.h"

#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>

#include "bindings.h"

namespace py = pybind11;
using namespace py::literals;

namespace lmfusion {
namespace {

// A Python callable that may be called and let go from any thread.
std::shared_ptr<py::function> Shared(py::function function) {
  return {new py::function(std::move(function)), [](py::function* held) {
            const py::gil_scoped_acquire acquire;
            delete held;
          }};
}

std::shared_ptr<const Casing> CasingOf(py::function function) {
  return CasingFromFunction([held = Shared(std::move(function))](const std::string& text) {
    const py::gil_scoped_acquire acquire;
    return (*held)(text).cast<std::string>();
  });
}

std::shared_ptr<const Tokenizer> TokenizerOf(py::function function, int32_t vocabulary_size) {
  return TokenizerFromFunction(
      [held = Shared(std::move(function))](const std::string& text) {
        const py::gil_scoped_acquire acquire;
        return (*held)(text).cast<std::vector<int32_t>>();
      },
      vocabulary_size);
}

std::unique_ptr<LMFusionScorer> Open(const std::string& path, double weight,
                                     double word_insertion_bonus,
                                     const std::string& homophone_aggregation,
                                     const std::string& device, const std::string& compute,
                                     int64_t max_context_length, const py::object& casing,
                                     const std::string& truecaser, const py::object& tokenizer,
                                     int64_t kv_cache_bytes, int64_t max_batch_tokens,
                                     const std::string& bos, const std::string& boundary,
                                     const std::string& mode, const std::string& kv_dtype) {
  ScorerOptions options;
  options.weight = weight;
  options.word_insertion_bonus = word_insertion_bonus;
  options.homophone_aggregation = homophone_aggregation;
  options.device = device;
  options.compute = compute;
  options.kv_dtype = kv_dtype;
  options.max_context_length = max_context_length;
  if (py::isinstance<py::str>(casing)) {
    options.casing = casing.cast<std::string>();
  } else {
    options.casing_object = CasingOf(casing.cast<py::function>());
  }
  options.truecaser = truecaser;
  if (!tokenizer.is_none()) {
    options.tokenizer = TokenizerOf(tokenizer.cast<py::function>(), INT32_MAX);
  }
  options.kv_cache_bytes = kv_cache_bytes;
  options.max_batch_tokens = max_batch_tokens;
  options.bos = bos;
  options.boundary = BoundaryByName(boundary);
  options.mode = ModeByName(mode);
  const py::gil_scoped_release release;
  return std::make_unique<LMFusionScorer>(path, std::move(options));
}

using Texts = std::vector<std::string>;
using Floors = std::vector<std::vector<double>>;
using Scores = std::vector<std::vector<double>>;
using Method = Scores (LMFusionScorer::*)(const Texts&, const std::vector<Texts>&,
                                          const CallOptions&);

// A scoring method with the fields of CallOptions as arguments.
auto Ragged(Method method) {
  return [method](LMFusionScorer& self, const Texts& contexts, const std::vector<Texts>& words,
                  const std::string& cache_namespace, Floors floors, double deadline) {
    CallOptions call;
    call.cache_namespace = cache_namespace;
    call.floors = std::move(floors);
    call.deadline = deadline;
    return (self.*method)(contexts, words, call);
  };
}

void BindStats(py::module_& m) {
  py::class_<Stats>(m, "Stats", "What a scorer has done; see include/lmfusion/stats.h.")
      .def_readonly("calls", &Stats::calls)
      .def_readonly("candidates", &Stats::candidates)
      .def_readonly("tokens_requested", &Stats::tokens_requested)
      .def_readonly("tokens_computed", &Stats::tokens_computed)
      .def_readonly("tokens_reused", &Stats::tokens_reused)
      .def_readonly("forwards", &Stats::forwards)
      .def_readonly("tokens_padded", &Stats::tokens_padded)
      .def_readonly("forwards_replayed", &Stats::forwards_replayed)
      .def_readonly("weight_bytes", &Stats::weight_bytes)
      .def_readonly("evictions", &Stats::evictions)
      .def_readonly("truncated_contexts", &Stats::truncated_contexts)
      .def_readonly("text_bytes_tokenized", &Stats::text_bytes_tokenized)
      .def_readonly("cache_bytes", &Stats::cache_bytes)
      .def_readonly("cache_bytes_limit", &Stats::cache_bytes_limit)
      .def_readonly("cached_tokens", &Stats::cached_tokens)
      .def_readonly("packed_linears", &Stats::packed_linears)
      .def_readonly("plain_linears", &Stats::plain_linears)
      .def_readonly("fused_operators", &Stats::fused_operators)
      .def_readonly("cached", &Stats::cached)
      .def_readonly("text_seconds", &Stats::text_seconds)
      .def_readonly("tree_seconds", &Stats::tree_seconds)
      .def_readonly("forward_seconds", &Stats::forward_seconds)
      .def_readonly("output_seconds", &Stats::output_seconds)
      .def_readonly("total_seconds", &Stats::total_seconds)
      .def_readonly("latency_p50", &Stats::latency_p50)
      .def_readonly("latency_p95", &Stats::latency_p95)
      .def_readonly("latency_p99", &Stats::latency_p99)
      .def("__repr__", &Stats::ToString);
}

void BindExplanation(py::module_& m) {
  py::class_<Explanation> explanation(m, "Explanation", "One candidate, token by token.");
  py::class_<Explanation::Token>(explanation, "Token")
      .def_readonly("id", &Explanation::Token::id)
      .def_readonly("piece", &Explanation::Token::piece)
      .def_readonly("log_prob", &Explanation::Token::log_prob)
      .def_readonly("scored", &Explanation::Token::scored)
      .def_readonly("reused", &Explanation::Token::reused);
  explanation.def_readonly("text", &Explanation::text)
      .def_readonly("context_bytes", &Explanation::context_bytes)
      .def_readonly("tokens", &Explanation::tokens)
      .def_readonly("subtracted", &Explanation::subtracted)
      .def_readonly("word_end_log_prob", &Explanation::word_end_log_prob)
      .def_readonly("word_begin_log_prob", &Explanation::word_begin_log_prob)
      .def_readonly("log_prob", &Explanation::log_prob)
      .def_readonly("score", &Explanation::score)
      .def_readonly("tokens_computed", &Explanation::tokens_computed);
}

}  // namespace

void BindScorer(py::module_& m) {
  using Released = py::call_guard<py::gil_scoped_release>;
  BindStats(m);
  BindExplanation(m);
  py::class_<LMFusionScorer>(m, "LMFusionScorer", "See lmfusion.LMFusionScorer.")
      .def(py::init(&Open), "path"_a, py::kw_only(), "weight"_a = 0.3,
           "word_insertion_bonus"_a = 0.0, "homophone_aggregation"_a = "max", "device"_a = "cpu",
           "compute"_a = "float32", "max_context_length"_a = 512, "casing"_a = "none",
           "truecaser"_a = "", "tokenizer"_a = py::none(), "kv_cache_bytes"_a = -1,
           "max_batch_tokens"_a = 512, "bos"_a = "auto", "boundary"_a = "plain", "mode"_a = "tree",
           "kv_dtype"_a = "auto")
      .def("score_continuations",
           Ragged(py::overload_cast<const Texts&, const std::vector<Texts>&, const CallOptions&>(
               &LMFusionScorer::score_continuations)),
           "contexts"_a, "candidate_words"_a, "cache_namespace"_a = "", "floors"_a = Floors(),
           "deadline"_a = CallOptions().deadline, Released())
      .def("log_probs",
           Ragged(py::overload_cast<const Texts&, const std::vector<Texts>&, const CallOptions&>(
               &LMFusionScorer::log_probs)),
           "contexts"_a, "candidate_words"_a, "cache_namespace"_a = "", "floors"_a = Floors(),
           "deadline"_a = CallOptions().deadline, Released())
      .def("score_texts_batch", &LMFusionScorer::score_texts_batch, "texts"_a,
           "length_normalize"_a = false, "cache_namespace"_a = "", Released())
      .def_property(
          "weight", [](const LMFusionScorer& self) { return self.options().weight; },
          &LMFusionScorer::set_weight)
      .def_property(
          "word_insertion_bonus",
          [](const LMFusionScorer& self) { return self.options().word_insertion_bonus; },
          &LMFusionScorer::set_word_insertion_bonus)
      .def_property(
          "homophone_aggregation",
          [](const LMFusionScorer& self) { return self.options().homophone_aggregation; },
          &LMFusionScorer::set_homophone_aggregation)
      .def("score_texts", &LMFusionScorer::score_texts, "texts"_a, "eos"_a = false,
           "cache_namespace"_a = "", Released())
      .def("score_endings", &LMFusionScorer::score_endings, "texts"_a, "endings"_a,
           "cache_namespace"_a = "", Released())
      .def("score_token_paths", &LMFusionScorer::score_token_paths, "paths"_a, "scored_begin"_a,
           "cache_namespace"_a = "", Released())
      .def("prime", &LMFusionScorer::prime, "contexts"_a, "vocabulary"_a = Texts(),
           "after"_a = Texts{""}, "cache_namespace"_a = "", Released())
      .def("save_cache", &LMFusionScorer::save_cache, "path"_a, "contexts"_a = Texts(),
           "cache_namespace"_a = "", Released())
      .def("load_cache", &LMFusionScorer::load_cache, "path"_a, "cache_namespace"_a = "",
           Released())
      .def("explain", &LMFusionScorer::explain, "context"_a, "word"_a, "cache_namespace"_a = "",
           Released())
      .def("aggregate_homophone_scores", &LMFusionScorer::aggregate_homophone_scores, "scores"_a)
      .def("stats", &LMFusionScorer::stats)
      .def("reset_stats", &LMFusionScorer::reset_stats)
      .def("clear_cache", &LMFusionScorer::clear_cache, Released())
      .def_property_readonly("model_description", &LMFusionScorer::model_description)
      .def("__repr__", [](const LMFusionScorer& self) {
        return "LMFusionScorer(" + self.options().ToString() + ")";
      });
}

}  // namespace lmfusion
