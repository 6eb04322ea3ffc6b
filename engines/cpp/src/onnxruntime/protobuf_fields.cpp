#include "onnxruntime/protobuf_fields.h"

#include <algorithm>
#include <cstring>

#include "text.h"

namespace page4d {
namespace {

constexpr uint64_t kVarint = 0, kEightBytes = 1, kLengthAndBytes = 2, kFourBytes = 5;

// Takes a number of up to 64 bits from the front.
uint64_t take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 70 && !bytes.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.front());
    bytes.remove_prefix(1);
    if (shift == 63 && (byte & 0x7e) != 0) break;
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
  throw Damaged("a number that is none");
}

bool fits_kind(char kind, uint64_t wire) {
  switch (kind) {
    case 'n':
      return wire == kVarint;
    case 'N':
      return wire == kVarint || wire == kLengthAndBytes;  // packed, too
    case 'm':
    case 'M':
      return wire == kLengthAndBytes;
    case 'f':
      return wire == kFourBytes;
    case 'F':
      return wire == kFourBytes || wire == kLengthAndBytes;
    case 'D':
      return wire == kEightBytes || wire == kLengthAndBytes;
    default:
      return false;
  }
}

}  // namespace

Message::Message(std::string_view bytes, const Kinds& kinds) {
  uint32_t seen = 0;
  while (!bytes.empty()) {
    const uint64_t tag = take_varint(bytes), wire = tag & 7;
    const char kind = kinds.of(tag >> 3);
    if (!fits_kind(kind, wire)) throw Damaged(page4d::text("field ", tag >> 3, " of wire type ", wire));
    const int number = static_cast<int>(tag >> 3);
    if (std::strchr("nmf", kind) != nullptr && (seen >> number & 1) != 0)
      throw Damaged(page4d::text("field ", number, " twice"));
    seen |= uint32_t{1} << number;
    if (wire == kVarint) {
      fields_.push_back({number, true, static_cast<int64_t>(take_varint(bytes)), {}});
      continue;
    }
    const uint64_t size = wire == kLengthAndBytes ? take_varint(bytes) : wire == kEightBytes ? 8 : 4;
    if (size > bytes.size()) throw Damaged(page4d::text("field ", number, " is cut short"));
    fields_.push_back({number, false, 0, bytes.substr(0, size)});
    bytes.remove_prefix(size);
  }
}

bool Message::has(int number) const {
  return std::any_of(fields_.begin(), fields_.end(), [&](const Field& field) { return field.number == number; });
}

std::vector<std::string_view> Message::parts(int number) const {
  std::vector<std::string_view> parts;
  for (const Field& field : fields_)
    if (field.number == number && !field.is_number) parts.push_back(field.bytes);
  return parts;
}

int64_t Message::number(int number) const {
  for (const Field& field : fields_)
    if (field.number == number && field.is_number) return field.value;
  return 0;
}

std::vector<int64_t> Message::numbers(int number) const {
  std::vector<int64_t> values;
  for (const Field& field : fields_)
    if (field.number == number && field.is_number) values.push_back(field.value);
  const bool is_single = !values.empty();
  for (std::string_view packed : parts(number)) {
    if (is_single) throw Damaged(page4d::text("field ", number, " is packed and is not"));
    while (!packed.empty()) values.push_back(static_cast<int64_t>(take_varint(packed)));
  }
  return values;
}

std::string Message::text(int number) const {
  const std::vector<std::string> all = texts(number);
  return all.empty() ? std::string() : all.front();
}

std::vector<std::string> Message::texts(int number) const {
  std::vector<std::string> texts;
  for (std::string_view bytes : parts(number)) {
    for (char character : bytes)
      if (static_cast<unsigned char>(character) >= 0x80)
        throw Damaged(page4d::text("field ", number, " is no plain text"));
    texts.emplace_back(bytes);
  }
  return texts;
}

}  // namespace page4d
