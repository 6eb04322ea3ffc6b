// Assertions of the C++ tests in engines/cpp and plugins/csrc, in every build type.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

// Prints both texts if they differ.
inline void check_text(const std::string& actual, const std::string& expected, const char* file, int line) {
  if (actual == expected) return;
  std::fprintf(stderr, "%s:%d: not equal\n--- actual\n%s\n--- expected\n%s\n", file, line, actual.c_str(),
               expected.c_str());
  std::exit(1);
}
#define CHECK_TEXT(actual, expected) check_text(actual, expected, __FILE__, __LINE__)

inline std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// The message of the E that a call throws. Other exceptions end the test.
template <class E, class F>
std::string message_of(const F& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing is thrown";
}
