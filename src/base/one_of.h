#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

namespace lmfusion {

template <typename T>
struct NamedValue {
  const char* name;
  T value;
};

// The value of a name; throws std::invalid_argument with the argument, its value and the choices.
template <typename T, size_t N>
T OneOf(const char* argument, const std::string& name, const NamedValue<T> (&choices)[N]) {
  std::string names;
  for (const NamedValue<T>& choice : choices) {
    if (name == choice.name) return choice.value;
    names += std::string(names.empty() ? "\"" : ", \"") + choice.name + "\"";
  }
  throw std::invalid_argument(std::string(argument) + " = \"" + name + "\"; one of " + names +
                              " expected");
}

template <typename T, size_t N>
const char* NameOf(T value, const NamedValue<T> (&choices)[N]) {
  for (const NamedValue<T>& choice : choices) {
    if (value == choice.value) return choice.name;
  }
  return "";
}

}  // namespace lmfusion
