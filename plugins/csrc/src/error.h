// Errors, as page4d.errors: what was wrong, what the value was, what is allowed and what to do.
#pragma once

#include <cstdint>
#include <exception>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace page4d::plugin {

class Error : public std::exception {
 public:
  explicit Error(std::string what) : text_(std::move(what)) {}

  Error& got(const std::string& value) { return line("got:     ", value); }
  Error& allowed(const std::string& value) { return line("allowed: ", value); }
  Error& hint(const std::string& value) { return line("try:     ", value); }

  const char* what() const noexcept override { return text_.c_str(); }

 private:
  Error& line(const char* label, const std::string& value) {
    text_ += std::string("\n  ") + label + value;
    return *this;
  }

  std::string text_;
};

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

// Sizes in brackets: [1, 2, 3]
inline std::string text_of(const std::vector<int64_t>& sizes) {
  std::string all;
  for (int64_t size : sizes) all += (all.empty() ? "" : ", ") + std::to_string(size);
  return "[" + all + "]";
}

}  // namespace page4d::plugin
