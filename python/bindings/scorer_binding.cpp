#include "lmfusion/scorer.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

#include "arguments.h"
#include "bindings.h"
#include "history_argument.h"
#include "interrupts.h"
#include "options_binding.h"
#include "record_pickle.h"

namespace py = pybind11;
using namespace py::literals;

namespace lmfusion {
namespace {

using Texts = std::vector<std::string>;
using Scores = std::vector<std::vector<double>>;
using Method = Scores (LMFusionScorer::*)(const Texts&, const std::vector<Texts>&,
                                          const CallOptions&);

std::unique_ptr<LMFusionScorer> Open(const py::object& path, const py::kwargs& given) {
  const std::string file = ReadText(path, {"path"});
  ScorerOptions options = ReadOptions(given);
  return Unlocked([&] { return std::make_unique<LMFusionScorer>(file, std::move(options)); });
}

// A name, or None for the scorer's own.
std::optional<Join> ReadJoin(const py::object& given) {
  if (given.is_none()) return std::nullopt;
  return JoinByName(ReadText(given, {"join"}));
}

std::string Namespace(const py::object& given) { return ReadText(given, {"cache_namespace"}); }

// One number for all candidates, or one each; None for none.
std::vector<std::vector<double>> ReadFloor(const py::object& floor,
                                           const std::vector<Texts>& words) {
  if (floor.is_none()) return {};
  if (PySequence_Check(floor.ptr()) && PyObject_Size(floor.ptr()) >= 0) {
    auto floors = ReadNumberLists(floor, "floor");
    if (floors.empty() && !words.empty()) {  // to the core, none
      throw py::value_error("floor has 0 rows for " + std::to_string(words.size()) +
                            " contexts; one number a candidate expected");
    }
    return floors;
  }
  PyErr_Clear();  // numbers of numpy and torch look like sequences that have no size
  const double number = ReadNumber(floor, {"floor"});
  std::vector<std::vector<double>> floors;
  for (const Texts& row : words) floors.emplace_back(row.size(), number);
  return floors;
}

// A scoring method with the fields of CallOptions as arguments.
auto Ragged(Method method) {
  return [method](LMFusionScorer& self, const py::object& contexts, const py::object& words,
                  const py::object& cache_namespace, const py::object& floor,
                  const py::object& deadline, const py::object& progress, const py::object& context,
                  const py::object& prompt, const py::object& join) {
    const Texts texts = ReadTexts(contexts, {"contexts"});
    const std::vector<Texts> candidates = ReadTextLists(words, "candidate_words");
    CallOptions call;
    call.cache_namespace = Namespace(cache_namespace);
    call.floors = ReadFloor(floor, candidates);
    call.join = ReadJoin(join);
    if (!deadline.is_none()) call.deadline = ReadNumber(deadline, {"deadline"});
    call.history = ReadHistory(context, prompt);
    return Watched(progress, [&] { return (self.*method)(texts, candidates, call); });
  };
}

std::string ToString(const Explanation::Token& token) {
  std::ostringstream out;
  out << "Token(id=" << token.id
      << ", piece=" << py::repr(py::str(token.piece)).cast<std::string>();
  if (token.scored) out << ", log_prob=" << token.log_prob;
  out << (token.reused ? ", reused)" : ")");
  return out.str();
}

std::string ToString(const Explanation::Form& form) {
  std::ostringstream out;
  out << "Form(text=" << py::repr(py::str(form.text)).cast<std::string>()
      << ", log_prob=" << form.log_prob << ")";
  return out.str();
}

std::string ToString(const Explanation& explanation) {
  std::ostringstream out;
  out << "Explanation(text=" << py::repr(py::str(explanation.text)).cast<std::string>()
      << ", log_prob=" << explanation.log_prob << ", score=" << explanation.score << ", tokens=[";
  const char* separator = "";
  for (const Explanation::Token& token : explanation.tokens) {
    if (!token.scored) continue;
    out << separator << ToString(token);
    separator = ", ";
  }
  out << "])";
  return out.str();
}

void BindExplanation(py::module_& m) {
  py::class_<Explanation> explanation(m, "Explanation", "One candidate, token by token.");
  py::class_<Explanation::Token>(explanation, "Token")
      .def_readonly("id", &Explanation::Token::id)
      .def_readonly("piece", &Explanation::Token::piece)
      .def_readonly("log_prob", &Explanation::Token::log_prob)
      .def_readonly("scored", &Explanation::Token::scored)
      .def_readonly("reused", &Explanation::Token::reused)
      .def(PickledBy(&Explanation::Token::id, &Explanation::Token::piece,
                     &Explanation::Token::log_prob, &Explanation::Token::scored,
                     &Explanation::Token::reused))
      .def("__repr__", [](const Explanation::Token& self) { return ToString(self); });
  py::class_<Explanation::Form>(explanation, "Form")
      .def_readonly("text", &Explanation::Form::text)
      .def_readonly("log_prob", &Explanation::Form::log_prob)
      .def(PickledBy(&Explanation::Form::text, &Explanation::Form::log_prob))
      .def("__repr__", [](const Explanation::Form& self) { return ToString(self); });
  explanation.def_readonly("text", &Explanation::text)
      .def_readonly("context_bytes", &Explanation::context_bytes)
      .def_readonly("tokens", &Explanation::tokens)
      .def_readonly("subtracted", &Explanation::subtracted)
      .def_readonly("word_end_log_prob", &Explanation::word_end_log_prob)
      .def_readonly("word_begin_log_prob", &Explanation::word_begin_log_prob)
      .def_readonly("log_prob", &Explanation::log_prob)
      .def_readonly("forms", &Explanation::forms)
      .def_readonly("candidate_log_prob", &Explanation::candidate_log_prob)
      .def_readonly("score", &Explanation::score)
      .def_readonly("tokens_computed", &Explanation::tokens_computed)
      .def(PickledBy(&Explanation::text, &Explanation::context_bytes, &Explanation::tokens,
                     &Explanation::subtracted, &Explanation::word_end_log_prob,
                     &Explanation::word_begin_log_prob, &Explanation::log_prob, &Explanation::forms,
                     &Explanation::candidate_log_prob, &Explanation::score,
                     &Explanation::tokens_computed))
      .def("__repr__", [](const Explanation& self) { return ToString(self); });
}

}  // namespace

void BindScorer(py::module_& m) {
  using Released = py::call_guard<py::gil_scoped_release>;
  using Self = LMFusionScorer;
  using Any = const py::object&;
  BindExplanation(m);
  py::class_<Self>(m, "LMFusionScorer", "See lmfusion.LMFusionScorer.")
      .def(py::init(&Open), "path"_a)
      .def("score_continuations",
           Ragged(py::overload_cast<const Texts&, const std::vector<Texts>&, const CallOptions&>(
               &Self::score_continuations)),
           "contexts"_a, "candidate_words"_a, "cache_namespace"_a = "", "floor"_a = py::none(),
           "deadline"_a = py::none(), "progress"_a = py::none(), "context"_a = py::tuple(),
           "prompt"_a = "", "join"_a = py::none())
      .def("log_probs",
           Ragged(py::overload_cast<const Texts&, const std::vector<Texts>&, const CallOptions&>(
               &Self::log_probs)),
           "contexts"_a, "candidate_words"_a, "cache_namespace"_a = "", "floor"_a = py::none(),
           "deadline"_a = py::none(), "progress"_a = py::none(), "context"_a = py::tuple(),
           "prompt"_a = "", "join"_a = py::none())
      .def(
          "score_texts",
          [](Self& self, Any given, Any given_eos, Any cache_namespace, Any progress, Any context,
             Any prompt) {
            const Texts texts = ReadTexts(given, {"texts"});
            const bool eos = ReadBool(given_eos, {"eos"});
            const std::string whose = Namespace(cache_namespace);
            const History history = ReadHistory(context, prompt);
            return Watched(progress, [&] { return self.score_texts(texts, eos, whose, history); });
          },
          "texts"_a, "eos"_a = false, "cache_namespace"_a = "", "progress"_a = py::none(),
          "context"_a = py::tuple(), "prompt"_a = "")
      .def(
          "token_log_probs",
          [](Self& self, Any given, Any cache_namespace, Any progress) {
            const Texts texts = ReadTexts(given, {"texts"});
            const std::string whose = Namespace(cache_namespace);
            return Watched(progress, [&] { return self.token_log_probs(texts, whose); });
          },
          "texts"_a, "cache_namespace"_a = "", "progress"_a = py::none())
      .def(
          "score_texts_batch",
          [](Self& self, Any given, Any given_normalize, Any cache_namespace, Any progress) {
            const Texts texts = ReadTexts(given, {"texts"});
            const bool normalize = ReadBool(given_normalize, {"length_normalize"});
            const std::string whose = Namespace(cache_namespace);
            return Watched(progress,
                           [&] { return self.score_texts_batch(texts, normalize, whose); });
          },
          "texts"_a, "length_normalize"_a = false, "cache_namespace"_a = "",
          "progress"_a = py::none())
      .def(
          "score_endings",
          [](Self& self, Any given, Any given_endings, Any cache_namespace, Any progress,
             Any context, Any prompt) {
            const Texts texts = ReadTexts(given, {"texts"});
            const Texts endings = ReadTexts(given_endings, {"endings"});
            const std::string whose = Namespace(cache_namespace);
            const History history = ReadHistory(context, prompt);
            return Watched(progress,
                           [&] { return self.score_endings(texts, endings, whose, history); });
          },
          "texts"_a, "endings"_a, "cache_namespace"_a = "", "progress"_a = py::none(),
          "context"_a = py::tuple(), "prompt"_a = "")
      .def(
          "selfcheck",
          [](Self& self, Any contexts, Any words, Any cache_namespace) {
            const Texts texts = ReadTexts(contexts, {"contexts"});
            const std::vector<Texts> candidates = ReadTextLists(words, "candidate_words");
            const std::string whose = Namespace(cache_namespace);
            return Watched(py::none(), [&] { return self.selfcheck(texts, candidates, whose); });
          },
          "contexts"_a, "candidate_words"_a, "cache_namespace"_a = "")
      .def(
          "score_token_paths",
          [](Self& self, Any given, Any given_begin, Any cache_namespace, Any progress) {
            const auto paths = ReadIntegerLists(given, "paths");
            const auto scored_begin = ReadIntegers(given_begin, {"scored_begin"});
            const std::string whose = Namespace(cache_namespace);
            return Watched(progress,
                           [&] { return self.score_token_paths(paths, scored_begin, whose); });
          },
          "paths"_a, "scored_begin"_a, "cache_namespace"_a = "", "progress"_a = py::none())
      .def(
          "prime",
          [](Self& self, Any given, Any given_vocabulary, Any given_after, Any cache_namespace,
             Any progress, Any given_join) {
            const Texts contexts = ReadTexts(given, {"contexts"});
            const Texts vocabulary = ReadTexts(given_vocabulary, {"vocabulary"});
            const Texts after = ReadTexts(given_after, {"after"});
            const std::string whose = Namespace(cache_namespace);
            const auto join = ReadJoin(given_join);
            return Watched(progress,
                           [&] { return self.prime(contexts, vocabulary, after, whose, join); });
          },
          "contexts"_a, "vocabulary"_a = py::tuple(), "after"_a = Texts{""},
          "cache_namespace"_a = "", "progress"_a = py::none(), "join"_a = py::none())
      .def(
          "save_cache",
          [](Self& self, Any given_path, Any given, Any cache_namespace) {
            const std::string path = ReadText(given_path, {"path"});
            const Texts contexts = ReadTexts(given, {"contexts"});
            const std::string whose = Namespace(cache_namespace);
            return Watched(py::none(), [&] { return self.save_cache(path, contexts, whose); });
          },
          "path"_a, "contexts"_a = py::tuple(), "cache_namespace"_a = "")
      .def(
          "load_cache",
          [](Self& self, Any given_path, Any cache_namespace) {
            const std::string path = ReadText(given_path, {"path"});
            const std::string whose = Namespace(cache_namespace);
            return Watched(py::none(), [&] { return self.load_cache(path, whose); });
          },
          "path"_a, "cache_namespace"_a = "")
      .def(
          "explain",
          [](Self& self, Any given_context, Any given_word, Any cache_namespace, Any given_join) {
            const std::string context = ReadText(given_context, {"context"});
            const std::string word = ReadText(given_word, {"word"});
            const std::string whose = Namespace(cache_namespace);
            const auto join = ReadJoin(given_join);
            return Watched(py::none(), [&] { return self.explain(context, word, whose, join); });
          },
          "context"_a, "word"_a, "cache_namespace"_a = "", "join"_a = py::none())
      .def(
          "aggregate_homophone_scores",
          [](const Self& self, Any scores) {
            return self.aggregate_homophone_scores(ReadNumbers(scores, {"scores"}));
          },
          "scores"_a)
      .def_property(
          "weight", [](const Self& self) { return self.options().weight; },
          [](Self& self, Any weight) { self.set_weight(ReadNumber(weight, {"weight"})); })
      .def_property(
          "word_insertion_bonus",
          [](const Self& self) { return self.options().word_insertion_bonus; },
          [](Self& self, Any bonus) {
            self.set_word_insertion_bonus(ReadNumber(bonus, {"word_insertion_bonus"}));
          })
      .def_property(
          "homophone_aggregation",
          [](const Self& self) { return self.options().homophone_aggregation; },
          [](Self& self, Any aggregation) {
            self.set_homophone_aggregation(ReadText(aggregation, {"homophone_aggregation"}));
          })
      .def("options", [](const Self& self) { return OptionsDict(self.options()); })
      .def("stats", &Self::stats, Released())
      .def("reset_stats", &Self::reset_stats, Released())
      .def(
          "clear_cache",
          [](Self& self, Any given) {
            if (given.is_none()) return Watched(py::none(), [&] { self.clear_cache(); });
            const std::string whose = Namespace(given);
            Watched(py::none(), [&] { self.clear_cache(whose); });
          },
          "cache_namespace"_a = py::none())
      .def_property_readonly("model_description", &Self::model_description)
      .def_property_readonly("tokenizer", &Self::tokenizer,
                             py::return_value_policy::reference_internal)
      .def("__repr__",
           [](const Self& self) { return "LMFusionScorer(" + self.options().ToString() + ")"; });
}

}  // namespace lmfusion
