#include "base/json_limits.h"

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

namespace lmfusion {
namespace {

using Json = nlohmann::json;

// Counts, and ends the reading at a limit.
class Counts final : public nlohmann::json_sax<Json> {
 public:
  explicit Counts(const JsonLimits& limits) : limits_(limits) {}

  const char* beyond = nullptr;

  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(number_integer_t) override { return Value(); }
  bool number_unsigned(number_unsigned_t) override { return Value(); }
  bool number_float(number_float_t, const string_t&) override { return Value(); }
  bool string(string_t& text) override { return Text(text) && Value(); }
  bool binary(binary_t&) override { return Value(); }
  bool start_object(size_t) override { return Begin(); }
  bool key(string_t& name) override { return Text(name); }
  bool end_object() override { return End(); }
  bool start_array(size_t) override { return Begin(); }
  bool end_array() override { return End(); }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  bool Value() {
    if (++values_ > limits_.values) beyond = "it has too many values";
    return beyond == nullptr;
  }
  bool Text(const string_t& text) {
    if (text.size() > limits_.text) beyond = "it has a text that is too long";
    return beyond == nullptr;
  }
  bool Begin() {
    if (++nesting_ > limits_.nesting) beyond = "it is nested too deeply";
    return Value();
  }
  bool End() {
    --nesting_;
    return true;
  }

  const JsonLimits limits_;
  int nesting_ = 0;
  int64_t values_ = 0;
};

}  // namespace

const char* BeyondLimits(std::string_view json, const JsonLimits& limits) {
  Counts counts(limits);
  Json::sax_parse(json, &counts);
  return counts.beyond;
}

}  // namespace lmfusion
