#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lmfusion {

// Reading the arguments of a call. Errors name the argument, the index, what was found and what is
// expected, and never show a value: it may be what somebody said.

// An argument, or an element of it: contexts, contexts[2], candidate_words[2][0].
struct Argument {
  const char* name;
  Py_ssize_t i = -1, j = -1;
  std::string ToString() const;
};

// TypeError: "<argument>: <type> found; <expected> expected".
[[noreturn]] void ThrowTypeError(const Argument& argument, pybind11::handle found,
                                 const char* expected);

// The UTF-8 of a str. Throws TextError for a lone surrogate.
std::string ReadText(pybind11::handle value, const Argument& argument);
// What has __float__ or __index__, numpy's and torch's numbers too.
double ReadNumber(pybind11::handle value, const Argument& argument);
// What has __index__, or a float that is a whole number.
int64_t ReadInteger(pybind11::handle value, const Argument& argument);
bool ReadBool(pybind11::handle value, const Argument& argument);

// Sequences: lists, tuples, arrays. Sets, mappings, iterators, str and bytes are refused.
std::vector<std::string> ReadTexts(pybind11::handle value, const Argument& argument);
std::vector<double> ReadNumbers(pybind11::handle value, const Argument& argument);
std::vector<int32_t> ReadIntegers(pybind11::handle value, const Argument& argument);
std::vector<std::vector<std::string>> ReadTextLists(pybind11::handle value, const char* name);
std::vector<std::vector<double>> ReadNumberLists(pybind11::handle value, const char* name);
std::vector<std::vector<int32_t>> ReadIntegerLists(pybind11::handle value, const char* name);

// Calls `f` without the interpreter's lock.
template <typename F>
auto Unlocked(F&& f) {
  const pybind11::gil_scoped_release release;
  return std::forward<F>(f)();
}

}  // namespace lmfusion
