// Values and lists as text.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

namespace page4d {

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

// The items of a list: a, b, c
template <class List>
std::string joined(const List& list, const char* between = ", ") {
  std::ostringstream stream;
  const char* before = "";
  for (const auto& item : list) {
    stream << before << item;
    before = between;
  }
  return stream.str();
}

// Sizes in brackets: [1, 2, 3]
inline std::string text_of(const std::vector<int64_t>& sizes) { return "[" + joined(sizes) + "]"; }

inline std::string or_none(const std::string& list) { return list.empty() ? "none" : list; }

}  // namespace page4d
