#include "text/tokenizers/json_tree.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lmfusion {
namespace {

using Json = nlohmann::json;

// Leaves nothing in a value whose destruction takes memory. As deep as the nesting.
void Empty(Json* value) noexcept {
  if (auto* const items = value->get_ptr<Json::array_t*>(); items != nullptr) {
    for (Json& item : *items) Empty(&item);
    items->clear();
  } else if (auto* const members = value->get_ptr<Json::object_t*>(); members != nullptr) {
    for (auto& member : *members) Empty(&member.second);
    members->clear();
  }
}

// Builds a tree in `root`, from which what was read can be taken down however reading ends. The
// names are those that nlohmann asks for.
class Builder {
 public:
  explicit Builder(Json* root) : root_(root) {}

  bool null() { return Add(nullptr); }
  bool boolean(bool value) { return Add(value); }
  bool number_integer(int64_t value) { return Add(value); }
  bool number_unsigned(uint64_t value) { return Add(value); }
  bool number_float(double value, const std::string&) { return Add(value); }
  bool string(std::string& value) { return Add(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }  // no JSON text has any
  bool start_object(size_t) { return Open(Json::value_t::object); }
  bool start_array(size_t) { return Open(Json::value_t::array); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }
  bool key(std::string& name) {
    member_ = &open_.back()->get_ref<Json::object_t&>()[name];
    Empty(member_);  // of a name that is there twice, the last counts
    return true;
  }
  [[noreturn]] bool parse_error(size_t, const std::string&, const Json::exception& error) {
    if (const auto* syntax = dynamic_cast<const Json::parse_error*>(&error)) throw *syntax;
    throw dynamic_cast<const Json::out_of_range&>(error);  // reading ends in no other way
  }

 private:
  // Where the next value goes.
  Json* Place() {
    if (open_.empty()) return root_;
    if (open_.back()->is_object()) return member_;
    return &open_.back()->get_ref<Json::array_t&>().emplace_back();
  }
  template <class Value>
  bool Add(Value&& value) {
    *Place() = std::forward<Value>(value);
    return true;
  }
  bool Open(Json::value_t kind) {
    Json* const place = Place();
    *place = Json(kind);
    open_.push_back(place);
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  Json* const root_;
  std::vector<Json*> open_;
  Json* member_ = nullptr;
};

}  // namespace

JsonTree::JsonTree(std::string_view json) {
  Builder builder(&root_);
  try {
    Json::sax_parse(json, &builder);
  } catch (...) {
    Empty(&root_);
    throw;
  }
}

JsonTree::~JsonTree() { Empty(&root_); }

}  // namespace lmfusion
