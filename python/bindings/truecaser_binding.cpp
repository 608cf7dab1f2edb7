#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>

#include "arguments.h"
#include "bindings.h"
#include "lmfusion/truecaser.h"

namespace py = pybind11;

namespace lmfusion {
namespace {

std::shared_ptr<Truecaser> OpenTruecaser(const py::object& path_or_bytes, bool compat) {
  std::shared_ptr<const Truecaser> truecaser;
  if (py::isinstance<py::bytes>(path_or_bytes)) {
    std::string bytes = path_or_bytes.cast<std::string>();
    const py::gil_scoped_release release;
    truecaser = TruecaserFromBytes(std::move(bytes), compat);
  } else {
    const auto path = py::module_::import("os").attr("fsdecode")(path_or_bytes).cast<std::string>();
    const py::gil_scoped_release release;
    truecaser = TruecaserFromFile(path, compat);
  }
  return std::const_pointer_cast<Truecaser>(truecaser);  // all its methods are const
}

}  // namespace

void BindTruecaser(py::module_& m) {
  py::class_<Truecaser, std::shared_ptr<Truecaser>>(
      m, "Truecaser",
      "The statistical truecaser of the package `truecase`; see docs/casing.md. Thread safe.")
      .def(py::init(&OpenTruecaser), py::arg("path_or_bytes"), py::kw_only(), py::arg("compat"),
           "Opens what `python -m lmfusion export-truecaser` wrote.")
      .def(
          "apply",
          [](const Truecaser& self, const py::object& context, const py::object& word) {
            const std::string before = ReadText(context, {"context"});
            const std::string candidate = ReadText(word, {"word"});
            const CasedText cased = Unlocked([&] { return self.Apply(before, candidate); });
            return std::make_pair(py::str(cased.text), cased.context_bytes);
          },
          py::arg("context"), py::arg("word"),
          "(cased text, number of its UTF-8 bytes before the candidate); the word follows the\n"
          "context as it is, what joins them at its beginning.")
      .def(
          "text",
          [](const Truecaser& self, const py::object& given) {
            const std::string text = ReadText(given, {"text"});
            return py::str(Unlocked([&] { return self.Apply("", text).text; }));
          },
          py::arg("text"), "The cased text.")
      .def_property_readonly("words_decided", &Truecaser::WordsDecided,
                             "Words whose case was decided so far, over all calls.");
}

}  // namespace lmfusion
