// Assertions of the tests, in every build type.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "page4d/error.h"

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)

// Both sides are printed where they differ.
inline void check_text(const std::string& actual, const std::string& expected, const char* file, int line) {
  if (actual == expected) return;
  std::fprintf(stderr, "%s:%d: not equal\n--- found\n%s\n--- wanted\n%s\n", file, line, actual.c_str(),
               expected.c_str());
  std::exit(1);
}
#define CHECK_TEXT(actual, expected) check_text(actual, expected, __FILE__, __LINE__)

inline std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// All lines of the Error that a call throws.
template <class F>
std::string refusal(const F& call) {
  try {
    call();
  } catch (const page4d::Error& error) {
    return error.what();
  }
  return "nothing is thrown";
}
