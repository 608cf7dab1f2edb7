#include "bundle/json_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/json_limits.h"

namespace lmfusion {
namespace {

using nlohmann::json;

constexpr size_t kShown = 60;        // bytes of a value in a message
constexpr size_t kMostReason = 200;  // bytes of what a parser says

// Of what a model file may say; real ones are far from them.
constexpr JsonLimits kLimits{16, 1 << 18, 1 << 20};

std::string Shown(const json& value) {
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  if (text.size() > kShown) text = text.substr(0, kShown) + "...";
  return text;
}

}  // namespace

json JsonObject(const std::string& text, const std::string& part, Problems* problems) {
  if (const char* const beyond = BeyondLimits(text, kLimits)) {
    problems->Add(part, "", beyond);
    return nullptr;
  }
  json parsed;
  try {
    parsed = json::parse(text);
  } catch (const json::exception& error) {
    // The reason repeats what was read, however long that is.
    problems->Add(part, "", "it is no JSON: " + std::string(error.what()).substr(0, kMostReason));
    return nullptr;
  }
  if (parsed.is_object()) return parsed;
  problems->Add(part, "", "it is no JSON object: " + Shown(parsed));
  return nullptr;
}

const json* JsonFields::Find(const std::string& name) const {
  const auto found = object_.find(name);
  if (found != object_.end()) return &*found;
  Problem(name, "it is missing");
  return nullptr;
}

bool JsonFields::ReadInteger(const std::string& name, const json& value, int64_t least,
                             int64_t most, int64_t* result) const {
  // An unsigned number above the largest int64_t is not read as one.
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() ||
                     value.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()});
  if (fits) *result = value.get<int64_t>();
  if (fits && *result >= least && *result <= most) return true;
  Problem(name, Shown(value) + "; an integer from " + std::to_string(least) + " to " +
                    std::to_string(most) + " expected");
  return false;
}

int64_t JsonFields::Integer(const std::string& name, int64_t least, int64_t most) const {
  int64_t result = 0;
  const json* value = Find(name);
  if (value != nullptr && ReadInteger(name, *value, least, most, &result)) return result;
  return least;
}

double JsonFields::Number(const std::string& name, bool positive) const {
  const json* value = Find(name);
  if (value == nullptr) return 1;
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (std::isfinite(number) && (positive ? number > 0 : number >= 0)) return number;
  Problem(name, Shown(*value) + "; a finite number " + (positive ? "above" : "of at least") +
                    " 0 expected");
  return 1;
}

bool JsonFields::Flag(const std::string& name) const {
  const json* value = Find(name);
  if (value == nullptr) return false;
  if (value->is_boolean()) return value->get<bool>();
  Problem(name, Shown(*value) + "; true or false expected");
  return false;
}

std::string JsonFields::Text(const std::string& name) const {
  const json* value = Find(name);
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  Problem(name, Shown(*value) + "; a text expected");
  return "";
}

std::string JsonFields::OneOf(const std::string& name,
                              const std::vector<std::string>& known) const {
  const json* value = Find(name);
  if (value == nullptr) return known.front();
  if (value->is_string()) {
    const auto text = value->get<std::string>();
    if (std::find(known.begin(), known.end(), text) != known.end()) return text;
  }
  std::string list;
  for (const std::string& each : known) list += (list.empty() ? "\"" : ", \"") + each + "\"";
  Problem(name, Shown(*value) + "; one of " + list + " expected");
  return known.front();
}

std::string JsonFields::Hex(const std::string& name, size_t digits) const {
  const json* value = Find(name);
  if (value == nullptr) return "";
  const std::string text = value->is_string() ? value->get<std::string>() : "";
  if (text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string::npos) {
    return text;
  }
  Problem(name, Shown(*value) + "; " + std::to_string(digits) + " hexadecimal digits expected");
  return "";
}

std::vector<int64_t> JsonFields::Integers(const std::string& name, int64_t least,
                                          int64_t most) const {
  std::vector<int64_t> result;
  const json* value = Find(name);
  if (value == nullptr) return result;
  if (!value->is_array()) {
    Problem(name, Shown(*value) + "; a list of integers expected");
    return result;
  }
  for (const json& each : *value) {
    int64_t number = 0;
    const std::string item = name + "[" + std::to_string(result.size()) + "]";
    result.push_back(ReadInteger(item, each, least, most, &number) ? number : least);
  }
  return result;
}

std::map<std::string, int64_t> JsonFields::Counts(const std::string& name) const {
  std::map<std::string, int64_t> result;
  for (const auto& [key, value] : Object(name).items()) {
    int64_t count = 0;
    if (ReadInteger(name + "." + key, value, 0, std::numeric_limits<int64_t>::max(), &count)) {
      result[key] = count;
    }
  }
  return result;
}

const json& JsonFields::Object(const std::string& name) const {
  static const json empty = json::object();
  const json* value = Find(name);
  if (value == nullptr) return empty;
  if (value->is_object()) return *value;
  Problem(name, Shown(*value) + "; an object expected");
  return empty;
}

}  // namespace lmfusion
