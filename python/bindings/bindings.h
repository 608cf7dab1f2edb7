#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace lmfusion {

// The UTF-8 of a Python string. A lone surrogate is a UnicodeEncodeError, which is a ValueError.
inline std::string Utf8(const pybind11::str& text) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (data == nullptr) throw pybind11::error_already_set();
  return std::string(data, static_cast<size_t>(size));
}

void BindBundle(pybind11::module_& m);
void BindErrors(pybind11::module_& m);
void BindOptions(pybind11::module_& m);
void BindScorer(pybind11::module_& m);
void BindState(pybind11::module_& m);
void BindStats(pybind11::module_& m);
void BindTextStage(pybind11::module_& m);
void BindTokenizer(pybind11::module_& m);
void BindTruecaser(pybind11::module_& m);

}  // namespace lmfusion
