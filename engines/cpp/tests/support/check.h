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
inline void check_text(const std::string& found, const std::string& wanted, const char* file, int line) {
  if (found == wanted) return;
  std::fprintf(stderr, "%s:%d: not equal\n--- found\n%s\n--- wanted\n%s\n", file, line, found.c_str(), wanted.c_str());
  std::exit(1);
}
#define CHECK_TEXT(found, wanted) check_text(found, wanted, __FILE__, __LINE__)

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
