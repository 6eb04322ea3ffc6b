#include "text.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>

namespace offline {
namespace {

// Bytes of the UTF-8 sequence at the front of `text`; 0 where there is none.
size_t sequence(std::string_view text) {
  const auto at = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xC2 && first < 0xE0   ? 2
                        : first >= 0xE0 && first < 0xF0 ? 3
                        : first >= 0xF0 && first < 0xF5 ? 4
                                                        : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  const unsigned second = at(1);  // spelled too long, a surrogate, or beyond the last code point
  if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second >= 0xA0) || (first == 0xF0 && second < 0x90) ||
      (first == 0xF4 && second >= 0x90))
    return 0;
  return length;
}

}  // namespace

std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  const size_t mark = text.find('e');
  const int exponent = std::stoi(text.substr(mark + 1));
  if (exponent < -4 || exponent >= 16) return text;
  std::string sign, digits;
  for (char c : text.substr(0, mark)) {
    if (c == '-') {
      sign = "-";
    } else if (c != '.') {
      digits += c;
    }
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string fixed(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

std::string grouped(int64_t value) {
  std::string text = std::to_string(value);
  const size_t start = value < 0 ? 1 : 0;
  for (size_t i = text.size(); i > start + 3; i -= 3) text.insert(i - 3, ",");
  return text;
}

std::string quoted_text(std::string_view text) {
  const char mark = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  std::string result(1, mark);
  for (char c : text) {
    char code[8];
    if (c == mark || c == '\\') {
      result += std::string("\\") + c;
    } else if (c == '\n' || c == '\r' || c == '\t') {
      result += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      std::snprintf(code, sizeof code, "\\x%02x", static_cast<unsigned>(c));
      result += code;
    } else {
      result += c;
    }
  }
  return result + mark;
}

std::string value_text(const Json& value) {
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_float()) return number_text(value.get<double>());
  if (value.is_string()) return quoted_text(value.get_ref<const std::string&>());
  if (!value.is_structured()) return value.dump();
  std::vector<std::string> parts;
  for (const auto& [key, item] : value.items())
    parts.push_back((value.is_object() ? quoted_text(key) + ": " : "") + value_text(item));
  return (value.is_object() ? "{" : "[") + joined(parts) + (value.is_object() ? "}" : "]");
}

std::string joined(const std::vector<std::string>& parts, std::string_view between) {
  std::string result;
  for (const std::string& part : parts) {
    if (&part != &parts.front()) result += between;
    result += part;
  }
  return result;
}

std::string path_text(const std::filesystem::path& path) {
  std::vector<std::string> parts;
  for (const auto& part : path.relative_path()) {
    if (!part.empty() && part != ".") parts.push_back(part.string());
  }
  const std::string text = (path.is_absolute() ? "/" : "") + joined(parts, "/");
  return text.empty() ? "." : text;
}

std::string as_text(std::string_view name) {
  std::string result;
  while (!name.empty()) {
    size_t length = sequence(name);
    if (length == 0) {
      char code[8];
      std::snprintf(code, sizeof code, "\\udc%02x", static_cast<unsigned>(static_cast<unsigned char>(name[0])));
      result += code;
      length = 1;
    } else {
      result += name.substr(0, length);
    }
    name.remove_prefix(length);
  }
  return result;
}

}  // namespace offline
