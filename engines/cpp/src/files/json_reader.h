// JSON into structs, strictly: every field has its type, and what has another is named by its place, in the words of
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

// in the document's order: the first thing that is wrong is the one that is told of
using Json = nlohmann::ordered_json;

// What is wrong, without the document's name.
struct JsonError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A value of a document and where it lies in it.
class JsonValue {
 public:
  JsonValue(const Json& value, std::string path) : value_(&value), path_(std::move(path)) {}

  // Each throws JsonError where the value has another type; `kind` is how the expectation is worded.
  std::string string(const char* kind = "str") const;
  int64_t integer(const char* kind = "int") const;
  double number() const;
  std::vector<JsonValue> array() const;
  std::vector<std::pair<std::string, JsonValue>> items(const char* kind = "object") const;
  bool is_null() const;
  // On one line; bytes that are no text become a sign of their own.
  std::string dump() const;
  // A whole number as it is, other values by their kind.
  std::string shown() const;
  // A field of an object; nothing where there is none, or this is none.
  std::optional<JsonValue> find(const char* name) const;
  // Whether it is this number, of whatever type.
  bool equals(int64_t number) const;

  struct Field {
    const char* name;
    bool required;
    std::function<void(const JsonValue&)> read;
  };
  // A struct's fields; others are passed over, as a newer writer may have more.
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
  // Throws JsonError where the text is no JSON, or has what two readers may read in two ways: a byte order mark, a key
  // twice in an object, more than a hundred objects and arrays inside one another, a whole number of more than 64 bits,
  // an infinite one.
  explicit JsonDocument(const std::string& text);
  ~JsonDocument();

  // Valid as long as this.
  JsonValue root() const { return JsonValue(*json_, "$"); }

 private:
  std::unique_ptr<Json> json_;
};

}  // namespace page4d
