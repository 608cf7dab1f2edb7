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
#include "lmfusion/verified.h"
#include "record_pickle.h"

namespace py = pybind11;
using namespace py::literals;

namespace lmfusion {
namespace {

std::optional<double> ReadOptionalNumber(const py::object& value, const char* name) {
  if (value.is_none()) return std::nullopt;
  return ReadNumber(value, {name});
}

std::vector<std::vector<double>> ReadBaseScores(
    const py::object& given, const std::vector<std::vector<std::string>>& lists) {
  if (!given.is_none()) return ReadNumberLists(given, "base_scores");
  std::vector<std::vector<double>> base;
  for (const auto& list : lists) base.emplace_back(list.size(), 0.0);
  return base;
}

// By a cheap scorer first, where there is one; else the margin is not looked at.
std::vector<BestList> Best(LMFusionScorer& self, const py::object& given,
                           const py::object& given_base, const py::object& weight,
                           const py::object& bonus, const py::object& n, const py::object& gap,
                           const py::object& within, const py::object& eos,
                           const py::object& deadline, const py::object& cache_namespace,
                           const py::object& context, const py::object& prompt,
                           const py::object& progress, LMFusionScorer* cheap,
                           const py::object& margin) {
  const std::vector<std::vector<std::string>> lists = ReadTextLists(given, "lists");
  const std::vector<std::vector<double>> base = ReadBaseScores(given_base, lists);
  BestOptions options;
  options.weight = ReadOptionalNumber(weight, "weight");
  options.word_insertion_bonus = ReadOptionalNumber(bonus, "word_insertion_bonus");
  options.n = ReadInteger(n, {"n"});
  options.gap = ReadNumber(gap, {"gap"});
  options.within = ReadNumber(within, {"within"});
  options.eos = ReadBool(eos, {"eos"});
  if (!deadline.is_none()) options.deadline = ReadNumber(deadline, {"deadline"});
  options.cache_namespace = ReadText(cache_namespace, {"cache_namespace"});
  options.history = ReadHistory(context, prompt);
  if (cheap == nullptr) {
    return Watched(progress, [&] { return self.best(lists, base, options); });
  }
  const double nats = ReadNumber(margin, {"margin"});
  return Watched(progress, [&] { return VerifiedBest(*cheap, self, nats, lists, base, options); });
}

}  // namespace

// LMFusionScorer.best and what it returns; the scorer is bound already.
void BindBest(py::module_& m) {
  py::class_<BestHypothesis>(m, "BestHypothesis", "See lmfusion.LMFusionScorer.best.")
      .def(py::init<int64_t, double, double, bool>(), "index"_a, "log_prob"_a, "total"_a, "exact"_a)
      .def_readonly("index", &BestHypothesis::index)
      .def_readonly("log_prob", &BestHypothesis::log_prob)
      .def_readonly("total", &BestHypothesis::total)
      .def_readonly("exact", &BestHypothesis::exact)
      .def(PickledBy(&BestHypothesis::index, &BestHypothesis::log_prob, &BestHypothesis::total,
                     &BestHypothesis::exact))
      .def("__repr__", [](const BestHypothesis& self) {
        std::ostringstream out;
        out << "BestHypothesis(index=" << self.index << ", log_prob=" << self.log_prob
            << ", total=" << self.total << (self.exact ? ", exact)" : ", at most)");
        return out.str();
      });
  py::class_<BestList>(m, "BestList", "See lmfusion.LMFusionScorer.best.")
      .def(py::init<std::vector<BestHypothesis>, std::vector<BestHypothesis>, double>(), "best"_a,
           "beaten"_a, "gap"_a)
      .def_readonly("best", &BestList::best)
      .def_readonly("beaten", &BestList::beaten)
      .def_readonly("gap", &BestList::gap)
      .def(PickledBy(&BestList::best, &BestList::beaten, &BestList::gap))
      .def("__repr__", [](const BestList& self) {
        return "BestList(best=" + py::repr(py::cast(self.best)).cast<std::string>() +
               ", beaten=" + std::to_string(self.beaten.size()) + ")";
      });
  py::class_<LMFusionScorer>(m.attr("LMFusionScorer"))
      .def("best", &Best, "lists"_a, "base_scores"_a = py::none(), "weight"_a = py::none(),
           "word_insertion_bonus"_a = py::none(), "n"_a = 1, "gap"_a = 0.0, "within"_a = 0.0,
           "eos"_a = false, "deadline"_a = py::none(), "cache_namespace"_a = "",
           "context"_a = py::tuple(), "prompt"_a = "", "progress"_a = py::none(),
           "cheap"_a = py::none(), "margin"_a = 0.0);
}

}  // namespace lmfusion
