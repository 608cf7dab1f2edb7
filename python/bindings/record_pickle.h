#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <stdexcept>

namespace lmfusion {

// How a struct of results is pickled and copied: by all of its fields. Worker processes hand such
// results back.
template <class Record, class... Fields>
auto PickledBy(Fields Record::*... fields) {
  namespace py = pybind11;
  return py::pickle([=](const Record& record) { return py::make_tuple(record.*fields...); },
                    [=](const py::tuple& state) {
                      if (state.size() != sizeof...(fields)) {
                        throw std::runtime_error("a pickle of another version of lmfusion");
                      }
                      Record record;
                      size_t i = 0;
                      ((record.*fields = state[i++].cast<Fields>()), ...);
                      return record;
                    });
}

}  // namespace lmfusion
