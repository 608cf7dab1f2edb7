#include "arguments.h"

#include <cmath>
#include <cstring>

#include "lmfusion/errors.h"

namespace py = pybind11;

namespace lmfusion {
namespace {

// The type's own name, without its module.
std::string TypeName(py::handle value) {
  const char* name = Py_TYPE(value.ptr())->tp_name;
  const char* dot = std::strrchr(name, '.');
  return dot == nullptr ? name : dot + 1;
}

std::string Surrogate(py::handle text) {
  const Py_ssize_t size = PyUnicode_GetLength(text.ptr());
  for (Py_ssize_t i = 0; i < size; ++i) {
    const Py_UCS4 character = PyUnicode_ReadChar(text.ptr(), i);
    if (character < 0xd800 || character > 0xdfff) continue;
    char code[8];
    std::snprintf(code, sizeof code, "U+%04X", static_cast<unsigned>(character));
    return std::string("a lone surrogate ") + code + " at character " + std::to_string(i);
  }
  return "it has no UTF-8";
}

bool IsListOfThings(py::handle value) {
  PyObject* const given = value.ptr();
  if (PyList_Check(given) || PyTuple_Check(given)) return true;
  if (PyUnicode_Check(given) || PyBytes_Check(given) || PyByteArray_Check(given)) return false;
  if (!PySequence_Check(given) && !PyMapping_Check(given)) return false;  // by number or by name
  return !py::isinstance(value, py::module_::import("collections.abc").attr("Mapping"));
}

// The elements of a sequence in order, as read(element, i).
template <typename T, typename Read>
std::vector<T> ReadEach(py::handle value, const Argument& argument, const char* expected,
                        Read read) {
  if (!IsListOfThings(value)) ThrowTypeError(argument, value, expected);
  const auto items = py::reinterpret_steal<py::object>(PySequence_Fast(value.ptr(), ""));
  if (!items) throw py::error_already_set();
  const Py_ssize_t size = PySequence_Fast_GET_SIZE(items.ptr());
  std::vector<T> all;
  all.reserve(static_cast<size_t>(size));
  for (Py_ssize_t i = 0; i < size && i < PySequence_Fast_GET_SIZE(items.ptr()); ++i) {
    const auto item = py::reinterpret_borrow<py::object>(PySequence_Fast_GET_ITEM(items.ptr(), i));
    all.push_back(read(item, i));
  }
  return all;
}

Argument At(const Argument& argument, Py_ssize_t i) {
  return argument.i < 0 ? Argument{argument.name, i} : Argument{argument.name, argument.i, i};
}

}  // namespace

std::string Argument::ToString() const {
  std::string text = name;
  if (i >= 0) text += "[" + std::to_string(i) + "]";
  if (j >= 0) text += "[" + std::to_string(j) + "]";
  return text;
}

void ThrowTypeError(const Argument& argument, py::handle found, const char* expected) {
  throw py::type_error(argument.ToString() + ": " + TypeName(found) + " found; " + expected +
                       " expected");
}

std::string ReadText(py::handle value, const Argument& argument) {
  if (!PyUnicode_Check(value.ptr())) ThrowTypeError(argument, value, "a str");
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(value.ptr(), &size);
  if (data == nullptr) {
    PyErr_Clear();
    throw TextError(argument.ToString() + " is not valid Unicode: " + Surrogate(value));
  }
  return std::string(data, static_cast<size_t>(size));
}

double ReadNumber(py::handle value, const Argument& argument) {
  const double number = PyFloat_AsDouble(value.ptr());
  if (number == -1 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    ThrowTypeError(argument, value, "a number");
  }
  return number;
}

int64_t ReadInteger(py::handle value, const Argument& argument) {
  const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!index) {
    PyErr_Clear();
    const double number = PyFloat_AsDouble(value.ptr());
    const bool is_number = number != -1 || PyErr_Occurred() == nullptr;
    PyErr_Clear();
    if (is_number && std::trunc(number) == number && std::abs(number) < 9e15) {
      return static_cast<int64_t>(number);
    }
    ThrowTypeError(argument, value, "a whole number");
  }
  const long long integer = PyLong_AsLongLong(index.ptr());
  if (integer == -1 && PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    throw py::value_error(argument.ToString() + " does not fit 64 bits");
  }
  return integer;
}

bool ReadBool(py::handle value, const Argument& argument) {
  const bool numpys = std::strncmp(Py_TYPE(value.ptr())->tp_name, "numpy.bool", 10) == 0;
  if (!PyBool_Check(value.ptr()) && !numpys) ThrowTypeError(argument, value, "a bool");
  return PyObject_IsTrue(value.ptr()) == 1;
}

std::vector<std::string> ReadTexts(py::handle value, const Argument& argument) {
  return ReadEach<std::string>(value, argument, "a list of str", [&](py::handle item, auto i) {
    return ReadText(item, At(argument, i));
  });
}

std::vector<double> ReadNumbers(py::handle value, const Argument& argument) {
  return ReadEach<double>(value, argument, "a list of numbers", [&](py::handle item, auto i) {
    return ReadNumber(item, At(argument, i));
  });
}

std::vector<int32_t> ReadIntegers(py::handle value, const Argument& argument) {
  return ReadEach<int32_t>(
      value, argument, "a list of whole numbers", [&](py::handle item, auto i) {
        const int64_t integer = ReadInteger(item, At(argument, i));
        if (integer == static_cast<int32_t>(integer)) return static_cast<int32_t>(integer);
        throw py::value_error(At(argument, i).ToString() + " does not fit 32 bits");
      });
}

std::vector<std::vector<std::string>> ReadTextLists(py::handle value, const char* name) {
  return ReadEach<std::vector<std::string>>(value, {name}, "a list of lists of str",
                                            [&](py::handle item, auto i) {
                                              return ReadTexts(item, {name, i});
                                            });
}

std::vector<std::vector<double>> ReadNumberLists(py::handle value, const char* name) {
  return ReadEach<std::vector<double>>(value, {name}, "a list of lists of numbers",
                                       [&](py::handle item, auto i) {
                                         return ReadNumbers(item, {name, i});
                                       });
}

std::vector<std::vector<int32_t>> ReadIntegerLists(py::handle value, const char* name) {
  return ReadEach<std::vector<int32_t>>(value, {name}, "a list of lists of whole numbers",
                                        [&](py::handle item, auto i) {
                                          return ReadIntegers(item, {name, i});
                                        });
}

}  // namespace lmfusion
