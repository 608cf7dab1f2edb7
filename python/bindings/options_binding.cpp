#include "options_binding.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"

namespace py = pybind11;

namespace lmfusion {
namespace {

// A Python callable that may be called and let go from any thread.
std::shared_ptr<py::function> Shared(py::function function) {
  return {new py::function(std::move(function)), [](py::function* held) {
            const py::gil_scoped_acquire acquire;
            delete held;
          }};
}

std::shared_ptr<const Casing> CasingOf(py::function function) {
  return CasingFromFunction([held = Shared(std::move(function))](const std::string& text) {
    const py::gil_scoped_acquire acquire;
    return ReadText((*held)(text), {"what the casing function returned"});
  });
}

std::shared_ptr<const Tokenizer> TokenizerOf(py::function function) {
  return TokenizerFromFunction(
      [held = Shared(std::move(function))](const std::string& text) {
        const py::gil_scoped_acquire acquire;
        return ReadIntegers((*held)(text), {"what the tokenizer function returned"});
      },
      INT32_MAX);
}

void Read(py::handle value, const char* name, double, double* into) {
  *into = ReadNumber(value, {name});
}
void Read(py::handle value, const char* name, const std::string&, std::string* into) {
  *into = ReadText(value, {name});
}
void Read(py::handle value, const char* name, Mode, Mode* into) {
  *into = ModeByName(ReadText(value, {name}));
}
void Read(py::handle value, const char* name, Boundary, Boundary* into) {
  *into = BoundaryByName(ReadText(value, {name}));
}
void Read(py::handle value, const char* name, Join, Join* into) {
  *into = JoinByName(ReadText(value, {name}));
}
void Read(py::handle value, const char* name, SpecialTokens, SpecialTokens* into) {
  *into = SpecialTokensByName(ReadText(value, {name}));
}
void Read(py::handle value, const char* name, int64_t initial, int64_t* into) {
  if (initial == kAuto && PyUnicode_Check(value.ptr())) {
    const std::string word = ReadText(value, {name});
    if (word == "auto") return;
    throw py::value_error(std::string(name) + " = \"" + word +
                          "\"; a whole number or \"auto\" expected");
  }
  *into = ReadInteger(value, {name});
}

py::object ToPython(double value) { return py::float_(value); }
py::object ToPython(const std::string& value) { return py::str(value); }
py::object ToPython(Mode value) { return py::str(Name(value)); }
py::object ToPython(Boundary value) { return py::str(Name(value)); }
py::object ToPython(Join value) { return py::str(Name(value)); }
py::object ToPython(SpecialTokens value) { return py::str(Name(value)); }
py::object ToPython(int64_t value) {
  if (value == kAuto) return py::str("auto");
  return py::int_(value);
}

// (name, default, what it is) of each.
py::list Fields() {
  py::list fields;
  ForEachOption([&](const OptionField& field, auto member) {
    fields.append(py::make_tuple(field.name, ToPython(ScorerOptions().*member), field.text));
  });
  return fields;
}

py::object Given(const py::dict& given, const char* name) {
  if (!given.contains(name)) return py::none();
  return given[name];
}

void ReadFunctions(const py::dict& given, ScorerOptions* options) {
  const py::object casing = Given(given, "casing");
  if (given.contains("casing") && !py::isinstance<py::str>(casing)) {
    if (!py::isinstance<py::function>(casing)) {
      ThrowTypeError({"casing"}, casing, "a name or a function");
    }
    options->casing_object = CasingOf(casing.cast<py::function>());
  }
  const py::object tokenizer = Given(given, "tokenizer");
  if (!tokenizer.is_none()) {
    if (!py::isinstance<py::function>(tokenizer)) {
      ThrowTypeError({"tokenizer"}, tokenizer, "a function or None");
    }
    options->tokenizer = TokenizerOf(tokenizer.cast<py::function>());
  }
}

}  // namespace

ScorerOptions ReadOptions(const py::dict& given) {
  ScorerOptions options;
  ReadFunctions(given, &options);
  std::vector<std::string> known = {"tokenizer"};
  ForEachOption([&](const OptionField& field, auto member) {
    known.emplace_back(field.name);
    const bool is_function = field.name == std::string("casing") && options.casing_object;
    if (!given.contains(field.name) || is_function) return;
    Read(given[field.name], field.name, ScorerOptions().*member, &(options.*member));
  });
  for (const auto& [name, value] : given) {
    const std::string key = ReadText(name, {"the name of an option"});
    bool is_known = false;
    for (const std::string& each : known) is_known = is_known || each == key;
    if (!is_known) throw py::type_error("there is no option " + key);
  }
  return options;
}

py::dict OptionsDict(const ScorerOptions& options) {
  py::dict fields;
  ForEachOption([&](const OptionField& field, auto member) {
    fields[field.name] = ToPython(options.*member);
  });
  if (options.casing_object != nullptr) fields.attr("pop")("casing");
  return fields;
}

void BindOptions(py::module_& m) {
  m.def("option_fields", &Fields, "(name, default, what it is) of each option of a scorer.");
}

}  // namespace lmfusion
