#include <pybind11/pybind11.h>

#include "arguments.h"
#include "base/log_sum_exp.h"
#include "bindings.h"
#include "lmfusion/join.h"
#include "text/unicode/utf8.h"

namespace py = pybind11;

namespace lmfusion {

// What states in Python have in common with those of lmfusion/state.h.
void BindState(py::module_& m) {
  m.def(
      "separator",
      [](const py::object& context, const py::object& word, const py::object& join) {
        return std::string(Separator(ReadText(context, {"context"}), ReadText(word, {"word"}),
                                     JoinByName(ReadText(join, {"join"}))));
      },
      py::arg("context"), py::arg("word"), py::arg("join") = "auto",
      "What stands between context and word: a space or nothing.");
  m.def(
      "written_without_spaces",
      [](const py::object& character) {
        const std::string text = ReadText(character, {"character"});
        return IsWrittenWithoutSpaces(CharacterAt(text, 0).value);
      },
      py::arg("character"),
      "Whether the script of a text's first character is written without spaces between words.");
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
