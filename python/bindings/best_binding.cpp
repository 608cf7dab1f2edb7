#include "lmfusion/best.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "arguments.h"
#include "bindings.h"
#include "history_argument.h"
#include "interrupts.h"
#include "lmfusion/scorer.h"

namespace py = pybind11;
using namespace py::literals;

namespace lmfusion {
namespace {

std::optional<double> ReadOptionalNumber(const py::object& value, const char* name) {
  if (value.is_none()) return std::nullopt;
  return ReadNumber(value, {name});
}

std::vector<BestList> Best(LMFusionScorer& self, const py::object& given,
                           const py::object& given_base, const py::object& weight,
                           const py::object& bonus, const py::object& n, const py::object& gap,
                           const py::object& eos, const py::object& deadline,
                           const py::object& cache_namespace, const py::object& context,
                           const py::object& prompt, const py::object& progress) {
  const std::vector<std::vector<std::string>> lists = ReadTextLists(given, "lists");
  std::vector<std::vector<double>> base;
  if (given_base.is_none()) {
    for (const auto& list : lists) base.emplace_back(list.size(), 0.0);
  } else {
    base = ReadNumberLists(given_base, "base_scores");
  }
  BestOptions options;
  options.weight = ReadOptionalNumber(weight, "weight");
  options.word_insertion_bonus = ReadOptionalNumber(bonus, "word_insertion_bonus");
  options.n = ReadInteger(n, {"n"});
  options.gap = ReadNumber(gap, {"gap"});
  options.eos = ReadBool(eos, {"eos"});
  if (!deadline.is_none()) options.deadline = ReadNumber(deadline, {"deadline"});
  options.cache_namespace = ReadText(cache_namespace, {"cache_namespace"});
  options.history = ReadHistory(context, prompt);
  return Watched(progress, [&] { return self.best(lists, base, options); });
}

}  // namespace

// LMFusionScorer.best and what it returns; the scorer is bound already.
void BindBest(py::module_& m) {
  py::class_<BestHypothesis>(m, "BestHypothesis", "See lmfusion.LMFusionScorer.best.")
      .def_readonly("index", &BestHypothesis::index)
      .def_readonly("log_prob", &BestHypothesis::log_prob)
      .def_readonly("total", &BestHypothesis::total)
      .def_readonly("exact", &BestHypothesis::exact)
      .def("__repr__", [](const BestHypothesis& self) {
        std::ostringstream out;
        out << "BestHypothesis(index=" << self.index << ", log_prob=" << self.log_prob
            << ", total=" << self.total << (self.exact ? ", exact)" : ", at most)");
        return out.str();
      });
  py::class_<BestList>(m, "BestList", "See lmfusion.LMFusionScorer.best.")
      .def_readonly("best", &BestList::best)
      .def_readonly("beaten", &BestList::beaten)
      .def_readonly("gap", &BestList::gap)
      .def("__repr__", [](const BestList& self) {
        return "BestList(best=" + py::repr(py::cast(self.best)).cast<std::string>() +
               ", beaten=" + std::to_string(self.beaten.size()) + ")";
      });
  py::class_<LMFusionScorer>(m.attr("LMFusionScorer"))
      .def("best", &Best, "lists"_a, "base_scores"_a = py::none(), "weight"_a = py::none(),
           "word_insertion_bonus"_a = py::none(), "n"_a = 1, "gap"_a = 0.0, "eos"_a = false,
           "deadline"_a = py::none(), "cache_namespace"_a = "", "context"_a = py::tuple(),
           "prompt"_a = "", "progress"_a = py::none());
}

}  // namespace lmfusion
