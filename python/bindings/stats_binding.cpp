#include <pybind11/pybind11.h>

#include <string>

#include "bindings.h"
#include "lmfusion/stats.h"

namespace py = pybind11;

namespace lmfusion {
namespace {

const char* TypeName(uint64_t) { return "int"; }
const char* TypeName(int64_t) { return "int"; }
const char* TypeName(double) { return "float"; }
const char* TypeName(bool) { return "bool"; }

py::dict ToDict(const Stats& stats) {
  py::dict fields;
  ForEachStatsField(
      [&](const StatsField& field, auto member) { fields[field.name] = stats.*member; });
  return fields;
}

Stats FromDict(const py::dict& fields) {
  Stats stats;
  ForEachStatsField([&](const StatsField& field, auto member) {
    if (fields.contains(field.name))
      stats.*member = fields[field.name].cast<std::decay_t<decltype(stats.*member)>>();
  });
  return stats;
}

// (name, whether reset_stats() sets it to 0, type, what it is) of each.
py::list Fields() {
  py::list fields;
  ForEachStatsField([&](const StatsField& field, auto member) {
    fields.append(py::make_tuple(field.name, field.kind == StatsField::kCount,
                                 TypeName(Stats().*member), field.text));
  });
  return fields;
}

}  // namespace

void BindStats(py::module_& m) {
  py::class_<Stats> stats(m, "Stats", "What a scorer has done; docs/reference.md has the fields.");
  ForEachStatsField([&](const StatsField& field, auto member) {
    stats.def_readonly(field.name, member, field.text);
  });
  stats
      .def(
          "__add__", [](const Stats& self, const Stats& other) { return self + other; },
          py::arg("other"), "Of several scorers together.")
      .def(py::pickle(&ToDict, &FromDict))
      .def("to_dict", &ToDict, "The fields by name.")
      .def("to_json", &Stats::ToJson, "The same as JSON.")
      .def("__eq__",
           [](const Stats& a, const py::object& b) {
             return py::isinstance<Stats>(b) && a.ToJson() == b.cast<const Stats&>().ToJson();
           })
      .def("__repr__", &Stats::ToString);
  m.def("stats_fields", &Fields,
        "(name, whether reset_stats() sets it to 0, type, what it is) of each field of Stats.");
}

}  // namespace lmfusion
