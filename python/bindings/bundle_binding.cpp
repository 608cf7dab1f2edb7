#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings.h"
#include "bundle/bundle.h"

namespace py = pybind11;

namespace lmfusion {

void BindBundle(py::module_& m) {
  m.def(
      "read_description",
      [](const std::string& path) { return ReadDescription(ModelFile(path)).json; },
      py::arg("path"), py::call_guard<py::gil_scoped_release>());
  m.def("verify_model_file", &VerifyModelFile, py::arg("path"),
        py::call_guard<py::gil_scoped_release>());
  m.def("kv_bytes", &KvBytes, py::arg("layers"), py::arg("kv_heads"), py::arg("head_dim"),
        py::arg("kv_number_bytes"));
  m.def(
      "slot_bytes",
      [](int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t hidden_size,
         int64_t kv_number_bytes, int64_t hidden_number_bytes) {
        ModelDescription shape;
        shape.layers = layers;
        shape.kv_heads = kv_heads;
        shape.head_dim = head_dim;
        shape.hidden_size = hidden_size;
        return SlotBytes(shape, kv_number_bytes, hidden_number_bytes);
      },
      py::arg("layers"), py::arg("kv_heads"), py::arg("head_dim"), py::arg("hidden_size"),
      py::arg("kv_number_bytes"), py::arg("hidden_number_bytes"));
}

}  // namespace lmfusion
