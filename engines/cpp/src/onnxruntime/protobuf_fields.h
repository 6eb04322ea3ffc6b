// Fields of a protobuf message, read strictly: a message is refused that has a field twice, of another type, or of a
// number that its kind has not. ONNX Runtime's protobuf would merge or skip such. Mirrors
// page4d_engines/stage_files/protobuf_fields.py.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace page4d {

// The bytes are no such message; what() says why.
struct Damaged : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a message may have, by the field's number: `n` a number, `m` a message or text, `f` a float; `N`, `M`, `F` and
// `D` (of doubles) any number of them.
class Kinds {
 public:
  Kinds(std::initializer_list<int> numbers, const char* kinds) {
    for (int number : numbers) kinds_[static_cast<size_t>(number)] = *kinds++;
  }
  char of(uint64_t number) const { return number < kinds_.size() ? kinds_[number] : '\0'; }

 private:
  std::array<char, 32> kinds_{};
};

// One message; the bytes must outlive it.
class Message {
 public:
  // Throws Damaged.
  Message(std::string_view bytes, const Kinds& kinds);

  bool has(int number) const;
  // The field's messages or texts.
  std::vector<std::string_view> parts(int number) const;
  // Of 64 bits, with a sign; 0 if it is absent.
  int64_t number(int number) const;
  // All, packed ones or not. Throws Damaged.
  std::vector<int64_t> numbers(int number) const;
  // Plain ASCII, as all names are; empty if it is absent. Throws Damaged.
  std::string text(int number) const;
  std::vector<std::string> texts(int number) const;

 private:
  struct Field {
    int number;
    bool is_number;
    int64_t value;
    std::string_view bytes;
  };
  std::vector<Field> fields_;
};

}  // namespace page4d
