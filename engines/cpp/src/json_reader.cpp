#include "json_reader.h"

#include <nlohmann/json.hpp>
#include <set>

#include "text.h"

namespace page4d {
namespace {

constexpr int kDeepestNesting = 100;

const char* type_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::boolean: return "bool";
    case Json::value_t::string: return "str";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned: return "int";
    case Json::value_t::number_float: return "float";
    case Json::value_t::array: return "array";
    default: return "object";
  }
}

}  // namespace

JsonDocument::JsonDocument(const std::string& content) {
  const auto check_depth = [](int depth, Json::parse_event_t, Json&) {
    if (depth > kDeepestNesting) throw JsonError("JSON is nested too deeply");
    return true;
  };
  try {
    json_ = std::make_unique<Json>(Json::parse(content, check_depth));
  } catch (const Json::exception& error) {
    const std::string words = error.what();  // after the library's own number of the error
    const size_t number = words.find("] ");
    throw JsonError("JSON is malformed: " + words.substr(number == std::string::npos ? 0 : number + 2));
  }
}

JsonDocument::~JsonDocument() = default;

bool JsonValue::is_null() const { return value_->is_null(); }

std::string JsonValue::dump() const { return value_->dump(-1, ' ', false, Json::error_handler_t::replace); }

std::optional<JsonValue> JsonValue::find(const char* name) const {
  const auto found = value_->find(name);
  if (!value_->is_object() || found == value_->end()) return std::nullopt;
  return JsonValue(*found, path_ + "." + name);
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
  if (value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    throw JsonError(text("Expected `int` <= ", INT64_MAX, " - at `", path_, "`"));
  }
  return value_->get<int64_t>();
}

double JsonValue::number() const {
  if (!value_->is_number()) expected("float");
  return value_->get<double>();
}

std::vector<JsonValue> JsonValue::array() const {
  if (!value_->is_array()) expected("array");
  std::vector<JsonValue> found;
  for (const Json& item : *value_) found.emplace_back(item, text(path_, "[", found.size(), "]"));
  return found;
}

std::vector<std::pair<std::string, JsonValue>> JsonValue::items(const char* kind) const {
  if (!value_->is_object()) expected(kind);
  std::vector<std::pair<std::string, JsonValue>> found;
  for (const auto& [name, value] : value_->items()) found.emplace_back(name, JsonValue(value, path_ + "." + name));
  return found;
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
