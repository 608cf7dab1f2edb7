#include <pybind11/pybind11.h>

#include "arguments.h"
#include "base/log_sum_exp.h"
#include "bindings.h"
#include "lmfusion/casing.h"

namespace py = pybind11;

namespace lmfusion {

// What states in Python have in common with those of lmfusion/state.h.
void BindState(py::module_& m) {
  m.def(
      "needs_space",
      [](const py::object& context, const py::object& word) {
        return NeedsSpace(ReadText(context, {"context"}), ReadText(word, {"word"}));
      },
      py::arg("context"), py::arg("word"), "Whether a space joins context and word.");
  m.def(
      "log_sum_exp",
      [](const py::object& values) {
        const std::vector<double> numbers = ReadNumbers(values, {"values"});
        if (numbers.empty()) throw py::value_error("values is empty; one number at least expected");
        return LogSumExp(numbers);
      },
      py::arg("values"), "log(sum(exp(values))); -inf where all are.");
}

}  // namespace lmfusion
