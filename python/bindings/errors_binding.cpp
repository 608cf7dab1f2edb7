#include "lmfusion/errors.h"

#include <pybind11/pybind11.h>

#include "bindings.h"

namespace py = pybind11;

namespace lmfusion {

// The types of include/lmfusion/errors.h under the same names. std::invalid_argument is ValueError.
void BindErrors(py::module_& m) {
  auto& error = py::register_exception<Error>(m, "Error", PyExc_RuntimeError);
  py::register_exception<ModelFileError>(m, "ModelFileError", error);
  py::register_exception<TokenizerError>(m, "TokenizerError", error);
  py::register_exception<CacheBudgetError>(m, "CacheBudgetError", error);
  py::register_exception<CacheFileError>(m, "CacheFileError", error);
  py::register_exception<NumericalError>(m, "NumericalError", error);
  py::register_exception<TextError>(m, "TextError", PyExc_ValueError);
}

}  // namespace lmfusion
