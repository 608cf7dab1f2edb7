#pragma once

#include <pybind11/pybind11.h>

namespace lmfusion {

void BindBest(pybind11::module_& m);
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
