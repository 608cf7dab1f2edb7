#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bundle/problems.h"

namespace lmfusion {

// Parses one part of a model file; null, with a problem, where it is no JSON object.
nlohmann::json JsonObject(const std::string& text, const std::string& part, Problems* problems);

// The fields of one object of a part. Every method returns the field's value; where it is missing,
// of another type or out of range, it adds a problem and returns a value that is in range.
class JsonFields {
 public:
  // prefix: what the names of this object's fields begin with in problems, "parity.".
  JsonFields(const nlohmann::json& object, std::string part, Problems* problems,
             std::string prefix = "")
      : object_(object), part_(std::move(part)), prefix_(std::move(prefix)), problems_(problems) {}

  int64_t Integer(const std::string& name, int64_t least, int64_t most) const;
  // A finite number; `positive`: above 0, otherwise 0 too.
  double Number(const std::string& name, bool positive) const;
  bool Flag(const std::string& name) const;
  std::string Text(const std::string& name) const;
  std::string OneOf(const std::string& name, const std::vector<std::string>& known) const;
  // Lower-case hexadecimal digits, so many of them.
  std::string Hex(const std::string& name, size_t digits) const;
  std::vector<int64_t> Integers(const std::string& name, int64_t least, int64_t most) const;
  std::map<std::string, int64_t> Counts(const std::string& name) const;
  // The object in a field; an empty one where there is none.
  const nlohmann::json& Object(const std::string& name) const;

  void Problem(const std::string& name, const std::string& what) const {
    problems_->Add(part_, prefix_ + name, what);
  }

 private:
  // Null where there is no such field.
  const nlohmann::json* Find(const std::string& name) const;
  bool ReadInteger(const std::string& name, const nlohmann::json& value, int64_t least,
                   int64_t most, int64_t* result) const;

  const nlohmann::json& object_;
  const std::string part_, prefix_;
  Problems* const problems_;
};

}  // namespace lmfusion
