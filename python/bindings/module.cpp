#include "bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled part of lmfusion; its face is the package lmfusion.";
  m.attr("__version__") = LMFUSION_VERSION;
  m.attr("torch_version") = LMFUSION_TORCH_VERSION;
  lmfusion::BindErrors(m);
  lmfusion::BindBundle(m);
  lmfusion::BindOptions(m);
  lmfusion::BindStats(m);
  lmfusion::BindScorer(m);
  lmfusion::BindBest(m);
  lmfusion::BindState(m);
  lmfusion::BindTextStage(m);
  lmfusion::BindTokenizer(m);
  lmfusion::BindTruecaser(m);
}
