#include "bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled part of lmfusion; its face is the package lmfusion.";
  lmfusion::BindErrors(m);
  lmfusion::BindTokenizer(m);
  lmfusion::BindTruecaser(m);
}
