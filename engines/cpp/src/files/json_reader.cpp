#include "files/json_reader.h"

#include <nlohmann/json.hpp>
#include <set>

#include "text.h"

namespace page4d {
namespace {

constexpr size_t kDeepestNesting = 100;

const char* type_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::boolean:
      return "bool";
    case Json::value_t::string:
      return "str";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return "int";
    case Json::value_t::number_float:
      return "float";
    case Json::value_t::array:
      return "array";
    default:
      return "object";
  }
}

// Builds a document from a parser's events, and refuses what readers treat differently. Mirrors
// page4d/system/strict_json.py.
class StrictBuilder final : public nlohmann::json_sax<Json> {
 public:
  explicit StrictBuilder(Json& root) : root_(root) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(Json::number_integer_t value) override { return add(value); }
  bool number_unsigned(Json::number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX)) throw JsonError("JSON has a whole number of more than 64 bits");
    return add(static_cast<int64_t>(value));
  }
  bool number_float(Json::number_float_t value, const std::string& digits) override {
    if (digits.find_first_of(".eE") == std::string::npos)
      throw JsonError("JSON has a whole number of more than 64 bits");
    return add(value);
  }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(Json::binary_t&) override { throw JsonError("JSON is malformed"); }

  bool start_object(size_t) override { return open(Json::object()); }
  bool key(std::string& name) override {
    if (!open_.back().names.insert(name).second) throw JsonError("JSON has a key twice: " + name);
    open_.back().key = std::move(name);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    const std::string message = error.what();  // begins with the library's number of the error, in brackets
    const size_t code_end = message.find("] ");
    throw JsonError("JSON is malformed: " + message.substr(code_end == std::string::npos ? 0 : code_end + 2));
  }

 private:
  struct Open {
    Json* value;
    std::string key;              // of an object: of its next value
    std::set<std::string> names;  // of an object: all keys so far
  };

  Json& place(Json value) {
    if (open_.empty()) return root_ = std::move(value);
    Open& open = open_.back();
    if (open.value->is_array()) {
      open.value->push_back(std::move(value));
      return open.value->back();
    }
    auto& object = open.value->get_ref<Json::object_t&>();
    // appended as to a vector: the map's own insertion compares all keys first
    object.emplace_back(std::move(open.key), std::move(value));
    return object.back().second;
  }

  bool add(Json value) {
    place(std::move(value));
    return true;
  }

  bool open(Json value) {
    if (open_.size() >= kDeepestNesting) throw JsonError("JSON is nested too deeply");
    open_.push_back({&place(std::move(value)), {}, {}});
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  Json& root_;
  std::vector<Open> open_;
};

}  // namespace

JsonDocument::JsonDocument(const std::string& content) : json_(std::make_unique<Json>()) {
  if (content.rfind("\xef\xbb\xbf", 0) == 0) throw JsonError("JSON is malformed: it begins with a byte order mark");
  StrictBuilder builder(*json_);
  Json::sax_parse(content, &builder);
}

JsonDocument::~JsonDocument() = default;

std::string JsonValue::shown() const {
  switch (value_->type()) {
    case Json::value_t::null:
      return "nothing";
    case Json::value_t::boolean:
      return "true or false";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::number_float:
      return "a fraction";
    case Json::value_t::array:
      return "a list";
    case Json::value_t::object:
      return "an object";
    default:
      return dump();
  }
}

bool JsonValue::is_null() const { return value_->is_null(); }

std::string JsonValue::dump() const { return value_->dump(-1, ' ', false, Json::error_handler_t::replace); }

std::optional<JsonValue> JsonValue::find(const char* name) const {
  const auto member = value_->find(name);
  if (!value_->is_object() || member == value_->end()) return std::nullopt;
  return JsonValue(*member, path_ + "." + name);
}

bool JsonValue::equals(int64_t number) const { return value_->is_number() && *value_ == number; }

void JsonValue::expected(const char* kind) const {
  const std::string place = path_ == "$" ? "" : text(" - at `", path_, "`");
  throw JsonError(text("Expected `", kind, "`, got `", type_of(*value_), "`", place));
}

std::string JsonValue::string(const char* kind) const {
  if (!value_->is_string()) expected(kind);
  return value_->get<std::string>();
}

int64_t JsonValue::integer(const char* kind) const {
  if (!value_->is_number_integer()) expected(kind);
  return value_->get<int64_t>();
}

double JsonValue::number() const {
  if (!value_->is_number()) expected("float");
  return value_->get<double>();
}

std::vector<JsonValue> JsonValue::array() const {
  if (!value_->is_array()) expected("array");
  std::vector<JsonValue> items;
  for (const Json& item : *value_) items.emplace_back(item, text(path_, "[", items.size(), "]"));
  return items;
}

std::vector<std::string> JsonValue::strings() const {
  std::vector<std::string> items;
  for (const JsonValue& item : array()) items.push_back(item.string());
  return items;
}

std::vector<int64_t> JsonValue::integers() const {
  std::vector<int64_t> items;
  for (const JsonValue& item : array()) items.push_back(item.integer());
  return items;
}

std::vector<std::pair<std::string, JsonValue>> JsonValue::items(const char* kind) const {
  if (!value_->is_object()) expected(kind);
  std::vector<std::pair<std::string, JsonValue>> members;
  for (const auto& [name, value] : value_->items()) members.emplace_back(name, JsonValue(value, path_ + "." + name));
  return members;
}

void JsonValue::fields(std::initializer_list<Field> known, const char* kind) const {
  std::set<std::string> seen;
  for (const auto& [name, value] : items(kind)) {
    seen.insert(name);
    for (const Field& field : known) {
      if (name == field.name) field.read(value);
    }
  }
  for (const Field& field : known) {
    if (field.required && seen.count(field.name) == 0) {
      const std::string place = path_ == "$" ? "" : text(" - at `", path_, "`");
      throw JsonError(text("Object missing required field `", field.name, "`", place));
    }
  }
}

}  // namespace page4d
