// Reads JSON into structs, strictly: a field of another type is an error that names the field's place, worded as by
// Python's reader (msgspec).
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>  // the rest of it takes longer to compile than all of this library
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace page4d {

// keeps the document's order: the error is about the first thing that is wrong
using Json = nlohmann::ordered_json;

// What is wrong, without the document's name.
struct JsonError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A value of a document, and its place in the document.
class JsonValue {
 public:
  JsonValue(const Json& value, std::string path) : value_(&value), path_(std::move(path)) {}

  // Each throws JsonError if the value has another type; kind: the expected type, as in the message.
  std::string string(const char* kind = "str") const;
  int64_t integer(const char* kind = "int") const;
  double number() const;
  std::vector<JsonValue> array() const;
  std::vector<std::string> strings() const;
  std::vector<int64_t> integers() const;
  std::vector<std::pair<std::string, JsonValue>> items(const char* kind = "object") const;
  bool is_null() const;
  // On one line; bytes that are not UTF-8 become a replacement character.
  std::string dump() const;
  // An integer as it is, other values by their type.
  std::string shown() const;
  // A field of an object; nothing if there is no such field, or this is no object.
  std::optional<JsonValue> find(const char* name) const;
  // Whether it equals this number, of whatever type.
  bool equals(int64_t number) const;

  struct Field {
    const char* name;
    bool required;
    std::function<void(const JsonValue&)> read;
  };
  // The fields of a struct; others are ignored, since a newer writer may have more.
  void fields(std::initializer_list<Field> known, const char* kind = "object") const;

  template <class T, class Read>
  std::map<std::string, T> map(const Read& read) const {
    std::map<std::string, T> values;
    for (const auto& [name, value] : items())
      values.insert_or_assign(name, read(JsonValue(*value.value_, path_ + "[...]")));
    return values;
  }

 private:
  [[noreturn]] void expected(const char* kind) const;

  const Json* value_;
  std::string path_;
};

class JsonDocument {
 public:
  // Throws JsonError if the text is no JSON, or contains what readers treat differently: a byte order mark, a key twice
  // in an object, more than a hundred nested objects and arrays, an integer of more than 64 bits, an infinite number.
  explicit JsonDocument(const std::string& text);
  ~JsonDocument();

  // Valid as long as this.
  JsonValue root() const { return JsonValue(*json_, "$"); }

 private:
  std::unique_ptr<Json> json_;
};

}  // namespace page4d
